"""Find jobs in any state, the latest first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice

from ...schemas import AmbiguousJobId, JobNotFound, JobRecord, State
from .cursor import Cursor, iterate
from .failed_jobs import SCAN_LIMIT, failed_ids
from .index_page import IdPage, Selection, read_ids
from .job_filter import JobFilter, ended_or_enqueued_ms, job_conditions
from .lanes import latest_queued
from .namespace import CHUNK, Namespace

#: Minimum length of the beginning of an id. A shorter text could match by mistake.
_ID_BEGINNING = re.compile("[0-9a-fA-F]{8,31}")
#: Number of keys that one step of a scan reads: about 0.3 ms of the server's time.
_SCAN_COUNT = 1000
#: Maximum number of ids that an ambiguous beginning lists.
_MAX_CANDIDATES = 10
#: States whose jobs are in `due`.
_DUE = (State.SCHEDULED, State.SENDING, State.RETRYING)


def find_id(namespace: Namespace, beginning: str) -> str:
    """Return the id of the only job whose id begins with `beginning`; see `Reader.find_id`."""
    candidates = _ids_beginning(namespace, beginning)
    if not candidates:
        raise JobNotFound(beginning)
    if len(candidates) > 1:
        raise AmbiguousJobId(beginning, candidates)
    return candidates[0]


def _ids_beginning(namespace: Namespace, text: str) -> list[str]:
    # There is no index by id, because it would cost memory and time for each job.
    if namespace.client.exists(namespace.key(f"job:{text}")):
        return [text]
    if not _ID_BEGINNING.fullmatch(text):
        return []
    start = namespace.key("job:")
    pattern = re.sub(r"([\\*?\[\]^])", r"\\\1", start) + text.lower() + "*"
    found: set[str] = set()
    cursor = 0
    while True:
        cursor, keys = namespace.client.scan(cursor, match=pattern, count=_SCAN_COUNT)
        found.update(name[len(start) :] for name in keys)
        if cursor == 0 or len(found) > _MAX_CANDIDATES:
            return sorted(found)[:_MAX_CANDIDATES]


def find(namespace: Namespace, wanted: JobFilter, limit: int) -> list[JobRecord]:
    """Return at most `limit` jobs, the latest first; see `Reader.find`."""
    if wanted.error_codes and not wanted.states:
        wanted = replace(wanted, states=(State.FAILED,))
    # By id, because the id of a job that changed its state may be in several indexes.
    found: dict[str, JobRecord] = {}
    for ids in _sources(namespace, wanted):
        jobs = namespace.records(ids, chunk=limit)
        found |= {job.job_id: job for job in islice(filter(wanted.fits, jobs), limit)}
    return sorted(found.values(), key=ended_or_enqueued_ms, reverse=True)[:limit]


def _sources(namespace: Namespace, wanted: JobFilter) -> Iterator[Iterator[str]]:
    """Yield ids of jobs for each state of the filter, the latest first if there is an order."""
    states = wanted.states or tuple(State)
    if State.FAILED in states:
        yield _ids(partial(failed_ids, namespace, wanted, limit=CHUNK, scan_limit=SCAN_LIMIT))
    for listed in (State.SENT, State.CANCELLED):
        if listed in states:
            yield _listed(namespace, listed.value)
    if not set(_DUE).isdisjoint(states):
        yield _ids(partial(_due, namespace, wanted))
    if State.QUEUED in states:
        yield latest_queued(namespace, wanted.page_ids, wanted.campaigns)


def _ids(read: partial[IdPage]) -> Iterator[str]:
    return (job_id for page in iterate(read) for job_id in page.ids)


def _due(namespace: Namespace, wanted: JobFilter, after: Cursor | None) -> IdPage:
    conditions = job_conditions(wanted, "page_id", "campaign")
    selection = Selection(indexes=["due"], conditions=conditions)
    return read_ids(namespace, selection, after=after, limit=CHUNK, scan_limit=SCAN_LIMIT)


def _listed(namespace: Namespace, name: str) -> Iterator[str]:
    # Redis reaches a range in the middle of a list with a million ids in less than 0.1 ms.
    start = 0
    while True:
        ids = namespace.client.lrange(namespace.key(name), start, start + CHUNK - 1)
        yield from ids
        if len(ids) < CHUNK:
            return
        start += CHUNK
