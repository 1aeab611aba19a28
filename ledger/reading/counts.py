"""Count failed jobs by error code, page and time.

Indexes are counted if possible. Otherwise one field of each job is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import islice, pairwise

from ...schemas import State, from_ms
from ..job_hash import to_int
from .cursor import iterate
from .failed_jobs import failed_ids, failed_indexes, failed_selection
from .job_filter import JobFilter, job_conditions
from .namespace import CHUNK, Namespace, chunks

#: Number of entries that are read at once.
_IDS = 2000
_MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Number of failed jobs by name, the most frequent first.

    Attributes:
        sample: the number of counted jobs, if a limit restricted them to the latest; else None.
        names_left_out: number of names that a limit excluded. Names with the latest failures are
            counted.
    """

    by_name: dict[str, int] = field(default_factory=dict)
    sample: int | None = None
    names_left_out: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Minute:
    """Number of jobs that ended with a call in one minute; `at` is the start of the minute."""

    at: datetime
    sent: int
    failed: int


def count_by_error_code(namespace: Namespace, wanted: JobFilter, limit: int | None) -> Counts:
    """Return how many failed with each error code; see `Reader.count_by_error_code`."""
    if wanted.page_ids or wanted.campaigns:
        return _count_field(namespace, wanted, "error_code", limit)
    names = wanted.error_codes
    return _count_indexes(namespace, wanted, names, "failed_codes", "failed:", limit)


def count_by_page(namespace: Namespace, wanted: JobFilter, limit: int | None) -> Counts:
    """Return how many failed on each page; see `Reader.count_by_page`."""
    if wanted.error_codes or wanted.campaigns:
        return _count_field(namespace, wanted, "page_id", limit)
    names = wanted.page_ids
    return _count_indexes(namespace, wanted, names, "failed_pages", "failed_on:", limit)


def count_failed(namespace: Namespace, wanted: JobFilter) -> int | None:
    """Return the number of matching jobs; None if all of them would have to be read."""
    if len(job_conditions(wanted, "error_code", "page_id", "campaign")) > 1:
        return None
    return sum(_zcount(namespace, failed_indexes(wanted), wanted))


def oldest_failed_ms(namespace: Namespace, wanted: JobFilter) -> int | None:
    """Return when the oldest job in the filter's indexes failed; None if they are empty."""
    # Another client may have written impossible times.
    bounds = (wanted.since_ms or 0, _bounds(wanted)[1])
    pipeline = namespace.pipeline()
    for index in failed_selection(namespace, wanted).indexes:
        pipeline.zrangebyscore(namespace.key(index), *bounds, 0, 1, withscores=True)
    times = (to_int(score) for entries in pipeline.execute() for _, score in entries)
    return min((ms for ms in times if ms is not None), default=None)


def count_over_time(
    namespace: Namespace, filters: Sequence[JobFilter], edges_ms: Sequence[int]
) -> list[list[int]]:
    """Return, for each filter, how many jobs failed between each two consecutive edges."""
    spans = list(pairwise(edges_ms))
    indexes = [failed_indexes(wanted) for wanted in filters]
    pipeline = namespace.pipeline()
    for names in indexes:
        for start, end in spans:
            for name in names:
                pipeline.zcount(namespace.key(name), start, f"({end}")
    counts = iter(pipeline.execute())
    return [[sum(islice(counts, len(names))) for _ in spans] for names in indexes]


def count_states(namespace: Namespace) -> dict[State, int]:
    """Return how many jobs are in each state; sent and canceled ones while they are kept."""
    pipeline = namespace.pipeline()
    pipeline.hgetall(namespace.key("counts"))
    pipeline.llen(namespace.key("sent"))
    pipeline.llen(namespace.key("cancelled"))
    pipeline.zcard(namespace.key("failed"))
    waiting, sent, cancelled, failed = pipeline.execute()
    counts = {state: max(0, to_int(waiting.get(state.value)) or 0) for state in State}
    return counts | {State.SENT: sent, State.CANCELLED: cancelled, State.FAILED: failed}


def throughput(namespace: Namespace, minutes: int) -> list[Minute]:
    """Return how many jobs ended in each of the latest minutes; see `Reader.throughput`."""
    current = namespace.now_ms() // _MINUTE_MS
    numbers = range(current - minutes + 1, current + 1)
    pipeline = namespace.pipeline()
    for number in numbers:
        pipeline.hmget(namespace.key(f"minute:{number}"), State.SENT.value, State.FAILED.value)
    return [
        Minute(
            at=from_ms(number * _MINUTE_MS),
            sent=max(0, to_int(sent) or 0),
            failed=max(0, to_int(failed) or 0),
        )
        for number, (sent, failed) in zip(numbers, pipeline.execute(), strict=True)
    ]


def sent_since(namespace: Namespace, job_id: str | None) -> tuple[int, str | None]:
    """Return how many jobs were sent after `job_id`, and the latest; see `Reader.sent_since`."""
    # In one transaction, so that the replies are consistent.
    pipeline = namespace.client.pipeline()
    pipeline.lindex(namespace.key("sent"), 0)
    pipeline.llen(namespace.key("sent"))
    if job_id is not None:
        pipeline.lpos(namespace.key("sent"), job_id)
    latest, kept, *place = pipeline.execute()
    return kept if place in ([], [None]) else place[0], latest


def most_first(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts above 0, the most frequent first, then by name."""
    used = ((name, count) for name, count in counts.items() if count)
    return dict(sorted(used, key=lambda item: (-item[1], item[0])))


def _count_indexes(
    namespace: Namespace,
    wanted: JobFilter,
    names: Sequence[str],
    names_key: str,
    prefix: str,
    limit: int | None,
) -> Counts:
    """Count each of `names`, or all names of an index of names, with the index of each name."""
    left_out = 0
    if not names:
        last = -1 if limit is None else limit - 1
        names = namespace.client.zrevrange(namespace.key(names_key), 0, last)
        if limit is not None and len(names) == limit:
            left_out = namespace.client.zcard(namespace.key(names_key)) - limit
    counts = _zcount(namespace, [prefix + name for name in names], wanted)
    by_name = most_first(dict(zip(names, counts, strict=True)))
    return Counts(by_name=by_name, names_left_out=max(0, left_out))


def _count_field(
    namespace: Namespace, wanted: JobFilter, field_name: str, limit: int | None
) -> Counts:
    """Count the latest `limit` jobs, or all, by a field that is read from each job."""
    counts: Counter[str] = Counter()
    read = 0
    size = _IDS if limit is None else limit
    pages = iterate(
        partial(
            failed_ids, namespace, wanted, limit=size, scan_limit=10 * size, with_field=field_name
        )
    )
    for page in pages:
        counts.update(filter(None, page.values))
        read += len(page.ids)
        if limit is not None:
            return Counts(by_name=most_first(counts), sample=read if page.after else None)
    return Counts(by_name=most_first(counts))


def _zcount(namespace: Namespace, indexes: Sequence[str], wanted: JobFilter) -> list[int]:
    counts: list[int] = []
    for some in chunks(indexes, CHUNK):
        pipeline = namespace.pipeline()
        for index in some:
            pipeline.zcount(namespace.key(index), *_bounds(wanted))
        counts += pipeline.execute()
    return counts


def _bounds(wanted: JobFilter) -> tuple[int | str, int | str]:
    since, until = wanted.since_ms, wanted.until_ms
    return ("-inf" if since is None else since, "+inf" if until is None else until)
