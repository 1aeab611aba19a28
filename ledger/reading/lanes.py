"""The lanes of pages: their queued jobs and lengths, however many lanes there are."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence

from ..job_hash import to_int
from .namespace import Namespace, chunks

#: Lanes read in one round trip.
_LANES = 2000
#: Lists that are begun in one round trip: about 1 ms of the server's time.
_LISTS = 500
#: Ids read of a list when it is begun, and when it continues.
_FEW, _CHUNK = 5, 200

#: A number that is the smaller the later a job was enqueued, and the job's id.
_Aged = tuple[int, str]


def pages_with_lane(namespace: Namespace) -> list[str]:
    """Return the pages that have a lane, in no order; some thousand a round trip."""
    lanes = namespace.client.zscan_iter(namespace.key("lanes"), count=_LANES)
    # Redis may return one twice.
    return list({page_id: None for page_id, _ in lanes})


def filled_lists(namespace: Namespace, pages: Sequence[str] = ()) -> list[str]:
    """Return the names of the lists with ids in the lanes of `pages`; of all pages if none."""
    found: list[str] = []
    for some in chunks(pages or pages_with_lane(namespace), _LANES):
        names = [f"{kind}:{page_id}" for page_id in some for kind in ("urgent", "ready")]
        pipeline = namespace.pipeline()
        for name in names:
            pipeline.llen(namespace.key(name))
        lengths = pipeline.execute()
        found += [name for name, length in zip(names, lengths, strict=True) if length]
    return found


def waiting_by_page(namespace: Namespace) -> dict[str, int]:
    """Return how many jobs wait in each page's lane."""
    return count_waiting(namespace, pages_with_lane(namespace))


def count_waiting(namespace: Namespace, page_ids: Iterable[str]) -> dict[str, int]:
    """Return how many jobs wait in the lanes of some pages."""
    sums: dict[str, int] = {}
    for pages in chunks(page_ids, _LANES):
        pipeline = namespace.pipeline()
        for page in pages:
            pipeline.llen(namespace.key(f"ready:{page}"))
            pipeline.llen(namespace.key(f"urgent:{page}"))
        lengths = pipeline.execute()
        sums |= {page: lengths[2 * i] + lengths[2 * i + 1] for i, page in enumerate(pages)}
    return sums


def latest_queued(namespace: Namespace, pages: Sequence[str]) -> Iterator[str]:
    """Yield the ids in the lanes of `pages`, those enqueued last coming first.

    A few ids of each lane are read at the beginning, the rest only when its turn comes. Within a
    lane the order is the lane's own: a job that was retried, or released, stands where it is to be
    sent from.
    """
    names = [f"{kind}:{page_id}" for page_id in pages for kind in ("urgent", "ready")]
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
