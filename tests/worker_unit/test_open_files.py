"""The limit of open files is raised for IN_FLIGHT, or a warning is logged."""

from __future__ import annotations

import sys

import pytest
from support.processes import run_program

RAISE = """
import logging, resource, sys
from harasocial_dispatch.worker.open_files import raise_open_file_limit
soft, hard = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
logging.basicConfig(format="%(message)s", stream=sys.stdout)
raise_open_file_limit(1000)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "after", "warned"),
    [(64, 1200, 1128, False), (64, 200, 200, True), (1200, 1200, 1200, False)],
)
def test_the_soft_limit_is_raised_as_far_as_needed(
    soft: int, hard: int, after: int, warned: bool
) -> None:
    """A thousand calls need more than the usual 1,024 files. The hard limit is the maximum."""
    done = run_program(sys.executable, "-c", RAISE, str(soft), str(hard), check=True)
    *warnings, limit = done.stdout.splitlines()
    assert int(limit) == after
    assert bool(warnings) == warned
    if warned:
        assert "HARASOCIAL_IN_FLIGHT=1000 needs 1128 open files, but at most 200" in warnings[0]
