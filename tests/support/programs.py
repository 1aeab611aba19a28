"""Programs that some tests start, and the Debian packages that install them.

A test names what it needs:

    @pytest.mark.needs("redis-server")
    def test_...

The mark also works on a module (`pytestmark = pytest.mark.needs("chromium")`) and on one parameter
(`pytest.param(..., marks=pytest.mark.needs("redis-server"))`). Where a program is missing, the test
is skipped, and the run ends with one line that lists the packages to install. With CI set, a
skipped test fails the run; `.ci/run` installs all of these packages.

To add a program, add a row to `NEEDS`. Prefer a server that a wheel installs: the fixture `valkey`
runs everywhere.

Run as a program, it prints the packages. It then runs on a bare Python, so it imports no library.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Need:
    """What a test needs of the machine.

    Attributes:
        is_met: whether the machine has it.
        package: the Debian package that installs it, or None if no package does.
    """

    is_met: Callable[[], bool]
    package: str | None = None


def _finds(*programs: str) -> Callable[[], bool]:
    return lambda: any(map(shutil.which, programs))


NEEDS = {
    "chromium": Need(_finds("chromium", "chromium-browser"), "chromium"),
    "faketime": Need(_finds("faketime"), "faketime"),
    "ip": Need(_finds("ip"), "iproute2"),
    "redis-server": Need(_finds("redis-server"), "redis-server"),
    "root": Need(lambda: os.geteuid() == 0),
}


def missing(names: Iterable[str]) -> list[str]:
    """Return which of these the machine does not have.

    Raises:
        KeyError: a name is not in `NEEDS`.
    """
    return [name for name in names if not NEEDS[name].is_met()]


def how_to_provide(names: Iterable[str]) -> str:
    """Return what to do so that the machine has these, as one line."""
    wanted = set(names)
    packages = sorted({NEEDS[name].package or "" for name in wanted} - {""})
    steps = [f"apt install {' '.join(packages)}"] if packages else []
    steps += ["run the tests as root"] if "root" in wanted else []
    return "; ".join(steps)


if __name__ == "__main__":
    print(*sorted({need.package for need in NEEDS.values() if need.package}))  # noqa: T201
