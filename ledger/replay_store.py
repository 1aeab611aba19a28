"""The progress of replays that were started in Flower, shared by all processes.

| key | content |
|---|---|
| replays | zset: replay id -> when it was requested (ms) |
| replay:<id> | hash: `state` (JSON text of the caller), `stop` ("1" once a stop is requested) |
| replay_owner:<id> | string: the process that works on it; expires unless that process renews it |
"""

from __future__ import annotations

from dataclasses import dataclass

from .reading.namespace import Namespace

#: Maximum number of replays that are kept; the oldest are deleted first.
KEPT = 50
#: How long (seconds) a replay is kept after it last changed.
_TTL_SECONDS = 7 * 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReplay:
    """A stored replay; `has_owner` is whether a process works on it now."""

    replay_id: str
    state: str
    has_owner: bool


class ReplayStore:
    """Stores replays. Every method raises `QueueUnavailable`."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def claim(self, replay_id: str, owner: str, *, ttl_seconds: float) -> bool:
        """Make `owner` the only process that works on a replay; return False if there is another.

        An earlier request to stop is deleted.
        """
        key = self._namespace.key(f"replay_owner:{replay_id}")
        client = self._namespace.client
        while not client.set(key, owner, nx=True, px=round(ttl_seconds * 1000)):
            current = client.get(key)
            if current == owner:
                break
            # An owner that has ended in the meantime does not count.
            if current is not None:
                return False
        client.hdel(self._namespace.key(f"replay:{replay_id}"), "stop")
        return True

    def save(
        self, replay_id: str, state: str, owner: str, *, asked_ms: int, ttl_seconds: float
    ) -> bool:
        """Store the progress of a replay claimed by `owner`; return whether it must stop."""
        key = self._namespace.key(f"replay:{replay_id}")
        pipeline = self._namespace.pipeline()
        pipeline.hset(key, "state", state)
        pipeline.hget(key, "stop")
        pipeline.expire(key, _TTL_SECONDS)
        pipeline.zadd(self._namespace.key("replays"), {replay_id: asked_ms})
        pipeline.set(
            self._namespace.key(f"replay_owner:{replay_id}"), owner, px=round(ttl_seconds * 1000)
        )
        _, stop, *_ = pipeline.execute()
        return bool(stop == "1")

    def release(self, replay_id: str, state: str, *, asked_ms: int) -> None:
        """Store a replay that has stopped or ended."""
        key = self._namespace.key(f"replay:{replay_id}")
        pipeline = self._namespace.pipeline()
        pipeline.hset(key, "state", state)
        pipeline.expire(key, _TTL_SECONDS)
        pipeline.zadd(self._namespace.key("replays"), {replay_id: asked_ms})
        pipeline.delete(self._namespace.key(f"replay_owner:{replay_id}"))
        pipeline.execute()
        self._forget_oldest()

    def request_stop(self, replay_id: str) -> None:
        """Request that the process that works on a replay stops; it does within two seconds."""
        self._namespace.client.hset(self._namespace.key(f"replay:{replay_id}"), "stop", "1")

    def get(self, replay_id: str) -> StoredReplay | None:
        """Return a replay, or None if it does not exist."""
        found = self._read([replay_id])
        return found[0] if found else None

    def latest(self) -> list[StoredReplay]:
        """Return the replays, the latest first."""
        ids = self._namespace.client.zrange(self._namespace.key("replays"), 0, KEPT - 1, desc=True)
        return self._read(ids)

    def owned(self) -> list[StoredReplay]:
        """Return the running ones among the latest replays, the latest first."""
        ids = self._namespace.client.zrange(self._namespace.key("replays"), 0, KEPT - 1, desc=True)
        pipeline = self._namespace.pipeline()
        for replay_id in ids:
            pipeline.exists(self._namespace.key(f"replay_owner:{replay_id}"))
        owned = pipeline.execute()
        return self._read([i for i, exists in zip(ids, owned, strict=True) if exists])

    def _read(self, replay_ids: list[str]) -> list[StoredReplay]:
        pipeline = self._namespace.pipeline()
        for replay_id in replay_ids:
            pipeline.hget(self._namespace.key(f"replay:{replay_id}"), "state")
            pipeline.exists(self._namespace.key(f"replay_owner:{replay_id}"))
        answers = pipeline.execute()
        return [
            StoredReplay(replay_id=replay_id, state=state, has_owner=owned == 1)
            for replay_id, state, owned in zip(replay_ids, answers[::2], answers[1::2], strict=True)
            if state is not None
        ]

    def _forget_oldest(self) -> None:
        index = self._namespace.key("replays")
        oldest = self._namespace.client.zrange(index, 0, -KEPT - 1)
        pipeline = self._namespace.pipeline()
        for replay_id in oldest:
            pipeline.zrem(index, replay_id)
            pipeline.delete(self._namespace.key(f"replay:{replay_id}"))
        pipeline.execute()
