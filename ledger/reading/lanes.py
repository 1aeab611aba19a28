"""The lanes of pages: their queued jobs and lengths."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice

from ..job_hash import to_int
from .namespace import Namespace, chunks

#: Number of lanes that are read in one round trip.
_LANES = 2000
#: Number of lists whose first ids are read in one round trip: about 1 ms of the server's time.
_LISTS = 500
#: Number of ids of a list that are searched for an id: about 1 ms of the server's time.
_SEARCHED = 100_000
#: Number of ids of a list that are read first, and in each further step.
_FEW, _CHUNK = 5, 200

#: A sort key that is smaller for jobs enqueued later, and the job's id.
_Aged = tuple[int, str]


def pages_with_lane(namespace: Namespace) -> list[str]:
    """Return the pages that have a lane, in no order; a few thousand per round trip."""
    lanes = namespace.client.zscan_iter(namespace.key("lanes"), count=_LANES)
    # Redis may return one twice.
    return list({page_id: None for page_id, _ in lanes})


def lists_by_page(
    namespace: Namespace, pages: Iterable[str] = (), campaigns: Collection[str] = ()
) -> Iterator[tuple[str, list[str]]]:
    """Yield pages with the names of their lists, in the order in which they are served.

    Lanes of held campaigns, which are not in their page's round, are included.

    Args:
        pages: the pages; empty for all pages that have a lane.
        campaigns: only the lists of these campaigns; empty for all lists.
    """
    held = _held_lanes(namespace)
    pages = pages or dict.fromkeys((*pages_with_lane(namespace), *held))
    for some in chunks(pages, _LANES):
        pipeline = namespace.pipeline()
        for page in some:
            pipeline.zrange(namespace.key(f"campaign_lanes:{page}"), 0, -1)
        for page, waiting in zip(some, pipeline.execute(), strict=True):
            own = dict.fromkeys((*waiting, *held.get(page, ())))
            lanes = [f"{page}/{name}" for name in own if not campaigns or name in campaigns]
            names = [f"{kind}:{lane}" for lane in lanes for kind in ("ready", "again")]
            if not campaigns:
                names = [f"urgent:{page}", f"ready:{page}", f"again:{page}", *names]
            yield page, names


def _held_lanes(namespace: Namespace) -> dict[str, list[str]]:
    """Return, by page, campaigns whose lanes may be missing from their page's round."""
    pipeline = namespace.pipeline()
    for name in ("held_campaigns", "canaries", "campaign_work"):
        pipeline.hkeys(namespace.key(name))
    campaigns = {name for names in pipeline.execute() for name in names}
    found: dict[str, list[str]] = {}
    for campaign in campaigns:
        counts = namespace.client.hscan_iter(
            namespace.key(f"campaign_pages:{campaign}"), match="*|queued", count=_LANES
        )
        for name, count in counts:
            if to_int(count):
                found.setdefault(name.removesuffix("|queued"), []).append(campaign)
    return found


def filled_lists(
    namespace: Namespace, pages: Sequence[str] = (), campaigns: Sequence[str] = ()
) -> list[str]:
    """Return the names of the lists that have ids; of all pages and campaigns if none is named."""
    lengths = _lengths(namespace, pages, campaigns)
    return [name for _, by_name in lengths for name, length in by_name.items() if length]


def waiting_by_page(namespace: Namespace) -> dict[str, int]:
    """Return how many jobs wait in each page's lane."""
    return {page: sum(lengths.values()) for page, lengths in _lengths(namespace)}


def count_waiting(namespace: Namespace, page_ids: Collection[str]) -> dict[str, int]:
    """Return how many jobs wait in the lanes of some pages."""
    # Without pages, `_lengths` would read all lanes.
    lengths_by_page = _lengths(namespace, page_ids) if page_ids else ()
    return {page: sum(lengths.values()) for page, lengths in lengths_by_page}


def _lengths(
    namespace: Namespace, pages: Collection[str] = (), campaigns: Collection[str] = ()
) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield pages with the length of each of their lists."""
    lists = lists_by_page(namespace, pages, campaigns)
    while some := list(islice(lists, _LANES)):
        pipeline = namespace.pipeline()
        for _, names in some:
            for name in names:
                pipeline.llen(namespace.key(name))
        lengths = iter(pipeline.execute())
        yield from ((page, dict(zip(names, lengths, strict=False))) for page, names in some)


def jobs_ahead(namespace: Namespace, job_id: str, page_id: str, campaign: str | None) -> int | None:
    """Return how many jobs of its page are served before a queued one; see `Reader.jobs_ahead`."""
    names = [f"{kind}:{page_id}" for kind in ("urgent", "ready", "again")]
    if campaign is not None:
        names += [f"{kind}:{page_id}/{campaign}" for kind in ("ready", "again")]
    pipeline = namespace.pipeline()
    for name in names:
        pipeline.llen(namespace.key(name))
        pipeline.lpos(namespace.key(name), job_id, maxlen=_SEARCHED)
    answers = pipeline.execute()
    lengths, places = answers[::2], answers[1::2]
    for number, place in enumerate(places):
        if place is not None:
            return int(sum(lengths[:number]) + place)
    return None


def latest_queued(
    namespace: Namespace, pages: Sequence[str] = (), campaigns: Sequence[str] = ()
) -> Iterator[str]:
    """Yield the ids in the lanes of some pages and campaigns, the latest enqueued first.

    A few ids of each lane are read at the beginning, the others only when they are needed. Within
    a lane, ids are in the order of the lane, which also contains retried and released jobs.
    """
    lists_of_pages = lists_by_page(namespace, pages, campaigns)
    names = [name for _, names in lists_of_pages for name in names]
    lists: list[Iterator[_Aged]] = []
    for some in chunks(names, _LISTS):
        begun = namespace.script("lane_ids", 0, _FEW, *some)
        lists += [
            _list(namespace, name, _aged(flat))
            for name, flat in zip(some, begun, strict=True)
            if flat
        ]
    return (job_id for _, job_id in heapq.merge(*lists))


def _list(namespace: Namespace, name: str, begun: list[_Aged]) -> Iterator[_Aged]:
    yield from begun
    read, complete = len(begun), len(begun) < _FEW
    while not complete:
        (flat,) = namespace.script("lane_ids", read, _CHUNK, name)
        more = _aged(flat)
        yield from more
        read, complete = read + len(more), len(more) < _CHUNK


def _aged(flat: Sequence[str]) -> list[_Aged]:
    times, ids = flat[1::2], flat[::2]
    return [(-(to_int(time) or 0), job_id) for time, job_id in zip(times, ids, strict=True)]
