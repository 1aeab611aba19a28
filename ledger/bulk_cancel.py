"""Cancel all waiting jobs that match a filter, in steps that do not block Redis."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..schemas import State
from .audit import AuditEntry
from .reading.cursor import Cursor, iterate
from .reading.index_page import IdPage, Selection, read_ids
from .reading.job_filter import JobFilter, job_conditions
from .reading.lanes import filled_lists
from .reading.namespace import Namespace

#: The states in which a job can be canceled.
CANCELABLE = (State.SCHEDULED, State.QUEUED, State.RETRYING)
#: Maximum number of jobs that one script call scans: about 1.5 ms of the server's time.
_SCAN_LIMIT = 100
#: Maximum number of lists that one script call reads.
_LISTS = 100
#: Maximum number of entries of `due` that one call scans to find jobs of the wanted pages.
_DUE_SCAN_LIMIT = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class CanceledJobs:
    """Jobs with these values in common that were canceled, or would be in a dry run.

    If `state` is SENDING, the jobs match the filter but were not canceled: calls in flight end.
    """

    state: State
    page_id: str
    campaign: str
    payload_id: str
    count: int


#: Runs cancel_matching.lua: `("ids" or "lists", ids at the end of the first list to skip, *names)`.
_Call = Callable[..., list[Any]]


def cancel_matching(
    namespace: Namespace,
    wanted: JobFilter,
    payload_ids: Sequence[str],
    audit: AuditEntry | None,
) -> Iterator[list[CanceledJobs]]:
    """Cancel the matching jobs, some in each step; see `Ledger.cancel_matching`."""
    script = partial(
        namespace.script,
        "cancel_matching",
        audit.operation_id if audit else "",
        audit.stored_text() if audit else "",
        _conditions(wanted, payload_ids),
        _SCAN_LIMIT,
    )
    # `due` comes first: jobs that become due during the scan are found in the lanes.
    states = wanted.states or CANCELABLE
    if State.SCHEDULED in states or State.RETRYING in states:
        for page in iterate(partial(_due, namespace, wanted)):
            if page.ids:
                yield _groups(script("ids", 0, *page.ids))
    if State.QUEUED in states:
        yield from _in_lanes(namespace, wanted, script)


def _due(namespace: Namespace, wanted: JobFilter, after: Cursor | None) -> IdPage:
    conditions = job_conditions(wanted, "page_id", "campaign")
    selection = Selection(indexes=["due"], conditions=conditions)
    return read_ids(
        namespace,
        selection,
        after=after,
        desc=False,
        limit=_SCAN_LIMIT,
        scan_limit=_DUE_SCAN_LIMIT,
    )


def _in_lanes(
    namespace: Namespace, wanted: JobFilter, script: _Call
) -> Iterator[list[CanceledJobs]]:
    names = filled_lists(namespace, wanted.page_ids, wanted.campaigns)
    skip = 0
    while names:
        answer = script("lists", skip, *names[:_LISTS])
        complete, skip = answer[:2]
        names = names[complete:]
        yield _groups(answer)


def _groups(answer: list[Any]) -> list[CanceledJobs]:
    return [
        CanceledJobs(
            state=State(state), page_id=page, campaign=campaign, payload_id=payload, count=count
        )
        for state, page, campaign, payload, count in answer[2:]
    ]


def _conditions(wanted: JobFilter, payload_ids: Sequence[str]) -> str:
    # Includes "sending", because such jobs are counted.
    states = [state.value for state in wanted.states]
    fields = {
        "state": [*states, State.SENDING.value] if states else [],
        "payload_id": list(payload_ids),
        **job_conditions(wanted, "error_code", "page_id", "campaign"),
    }
    times = {"since_ms": wanted.since_ms, "until_ms": wanted.until_ms}
    return json.dumps(
        {name: values for name, values in fields.items() if values}
        | {name: ms for name, ms in times.items() if ms is not None}
    )
