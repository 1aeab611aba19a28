"""Resolve job ids of a command line, and print the jobs that were refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...schemas import JobNotFound, State
from ..output.printing import print_notice


def whole_ids(find_id: Callable[[str], str], texts: Sequence[str]) -> list[str]:
    """Return the ids that begin with `texts`, without duplicates. An unknown id stays unchanged.

    Raises:
        AmbiguousJobId: several ids begin with a text.
    """
    found: dict[str, None] = {}
    for text in texts:
        try:
            found[find_id(text)] = None
        except JobNotFound:
            found[text] = None
    return list(found)


def print_refused(refused: Mapping[str, State | None], what: str) -> None:
    """Print the refused jobs, each with the state that caused the refusal."""
    for job_id, state in refused.items():
        if state is None:
            print_notice(str(JobNotFound(job_id)))
        else:
            print_notice(f"{job_id} {what}: it is {state}")


def states_as_json(states: Mapping[str, State | None]) -> dict[str, str | None]:
    """Return the states as in JSON."""
    return {job_id: None if state is None else state.value for job_id, state in states.items()}
