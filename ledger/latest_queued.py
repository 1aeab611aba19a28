"""Queued jobs of all lanes, the latest first, where there may be very many lanes.

A few ids of each are read at the beginning, many lanes a round trip; the rest only when its turn
comes.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from .job_hash import to_int
from .scripts import Scripts

#: Lists that are begun in one round trip: about 1 ms of the server's time.
_LISTS = 500
#: Ids read of a list when it is begun, and when it goes on.
_FEW, _CHUNK = 5, 200

#: A number that is the smaller the later a job was enqueued, and the job's id.
_Aged = tuple[int, str]


def latest_queued(scripts: Scripts, pages: Sequence[str]) -> Iterator[str]:
    """Yield the ids in the lanes of `pages`, those enqueued last coming first.

    Within a lane the order is the lane's own: a job that was retried, or given back, stands where
    it is to be sent from.
    """
    names = [f"{kind}:{page_id}" for page_id in pages for kind in ("urgent", "ready")]
    lists: list[Iterator[_Aged]] = []
    for start in range(0, len(names), _LISTS):
        some = names[start : start + _LISTS]
        begun = scripts("lane_ids", 0, _FEW, *some)
        lists += [
            _list(scripts, name, _aged(flat))
            for name, flat in zip(some, begun, strict=True)
            if flat
        ]
    return (job_id for _, job_id in heapq.merge(*lists))


def _list(scripts: Scripts, name: str, begun: list[_Aged]) -> Iterator[_Aged]:
    yield from begun
    read, complete = len(begun), len(begun) < _FEW
    while not complete:
        (flat,) = scripts("lane_ids", read, _CHUNK, name)
        more = _aged(flat)
        yield from more
        read, complete = read + len(more), len(more) < _CHUNK


def _aged(flat: Sequence[str]) -> list[_Aged]:
    times, ids = flat[1::2], flat[::2]
    return [(-(to_int(time) or 0), job_id) for time, job_id in zip(times, ids, strict=True)]
