"""Job ids named on a command line, and why nothing was done to some of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...schemas import JobNotFound, State
from ..output.printing import print_notice


def whole_ids(find_id: Callable[[str], str], texts: Sequence[str]) -> list[str]:
    """Return the ids that begin with `texts`, each once; a text that no job has stays as it is.

    Raises:
        AmbiguousJobId: before anything is done to a job.
    """
    found: dict[str, None] = {}
    for text in texts:
        try:
            found[find_id(text)] = None
        except JobNotFound:
            found[text] = None
    return list(found)


def print_refused(refused: Mapping[str, State | None], what: str) -> None:
    """Print for each job that it could not be done, and the state that is why."""
    for job_id, state in refused.items():
        if state is None:
            print_notice(str(JobNotFound(job_id)))
        else:
            print_notice(f"{job_id} {what}: it is {state}")


def states_as_json(states: Mapping[str, State | None]) -> dict[str, str | None]:
    """Return the states as they stand in JSON."""
    return {job_id: None if state is None else state.value for job_id, state in states.items()}
