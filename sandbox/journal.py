"""The record of received requests: counts, arrival times, and the last requests.

The server's thread writes it and other threads read it, so it has a lock.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from dataclasses import dataclass

from .contract import Job
from .request import RawRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Counts since the start, or since the last reset."""

    #: Complete requests, to any path but those under `/_sandbox/`.
    requests: int
    #: Complete POSTs to the messages path, valid or not.
    posts: int
    #: Accepted replies whose sending began: messages that would reach a person.
    accepted: int
    #: Distinct jobs among the POSTs.
    jobs: int
    #: Requests that followed the redirect of `sandbox:redirect`.
    redirected: int
    #: The highest number of requests in progress at one time.
    max_concurrent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedJob:
    """One job, identified by its first four fields, and its POSTs."""

    page_id: str
    recipient_id: str
    payload_id: str
    metadata: str | None
    #: Complete POSTs, whatever the reply.
    posts: int
    #: Accepted replies whose sending began.
    accepted: int
    #: When each POST was completely received, in seconds of `time.monotonic()`.
    arrived_at_monotonic: tuple[float, ...]
    #: The same moments in seconds since 1970, UTC.
    arrived_at: tuple[float, ...]


class _Entry:
    """The stored data of a job. It is small, because there may be many jobs."""

    __slots__ = ("accepted", "arrivals")

    def __init__(self) -> None:
        self.accepted = 0
        #: Monotonic seconds.
        self.arrivals: tuple[float, ...] = ()


class Journal:
    """Keeps received data. `keep_requests` is the maximum number of raw requests."""

    def __init__(self, keep_requests: int) -> None:
        self._lock = threading.Lock()
        # A constant offset, so that arrivals stay in order if the wall clock is set back.
        self._wall_offset_seconds = time.time() - time.monotonic()
        self._requests: deque[RawRequest] = deque(maxlen=keep_requests)
        self._in_flight = 0
        self._forget()

    def _forget(self) -> None:
        self._requests.clear()
        self._jobs: dict[Job, _Entry] = {}
        self._request_count = self._post_count = self._accepted_count = self._redirected_count = 0
        self._max_concurrent = self._in_flight

    def reset(self) -> None:
        """Delete everything except the requests in progress."""
        with self._lock:
            self._forget()

    def note_request(self, request: RawRequest) -> None:
        """Record a request whose reply starts; `note_answered` must follow."""
        with self._lock:
            self._request_count += 1
            self._in_flight += 1
            self._max_concurrent = max(self._max_concurrent, self._in_flight)
            self._requests.append(request)

    def note_post(self, job: Job | None) -> int:
        """Record a complete POST. Return its number among the POSTs of its job, from 1.

        If the body is invalid, `job` is None and the number is 1.
        """
        now = time.monotonic()
        with self._lock:
            self._post_count += 1
            if job is None:
                return 1
            entry = self._jobs.get(job)
            if entry is None:
                # Intern the strings: many jobs have the same page, and often the same payload.
                job = job._replace(
                    page_id=sys.intern(job.page_id), payload_id=sys.intern(job.payload_id)
                )
                entry = self._jobs[job] = _Entry()
            entry.arrivals += (now,)
            return len(entry.arrivals)

    def note_accepted(self, job: Job) -> None:
        """Record that the sending of an accepted reply begins."""
        with self._lock:
            entry = self._jobs.get(job)
            if entry is not None:  # None after a reset
                entry.accepted += 1
                self._accepted_count += 1

    def note_redirected(self) -> None:
        """Record a request to the target of a redirect."""
        with self._lock:
            self._redirected_count += 1

    def note_answered(self) -> None:
        """Record the end of a reply, complete or not."""
        with self._lock:
            self._in_flight -= 1

    def totals(self) -> Totals:
        """Return the current counts."""
        with self._lock:
            return Totals(
                requests=self._request_count,
                posts=self._post_count,
                accepted=self._accepted_count,
                jobs=len(self._jobs),
                redirected=self._redirected_count,
                max_concurrent=self._max_concurrent,
            )

    def jobs(self) -> list[ReceivedJob]:
        """Return every job received, in the order of their first POSTs."""
        with self._lock:
            entries = [(job, entry.accepted, entry.arrivals) for job, entry in self._jobs.items()]
        return [
            ReceivedJob(
                **job._asdict(),
                posts=len(arrivals),
                accepted=accepted,
                arrived_at_monotonic=arrivals,
                arrived_at=tuple(arrival + self._wall_offset_seconds for arrival in arrivals),
            )
            for job, accepted, arrivals in entries
        ]

    def requests(self) -> list[RawRequest]:
        """Return the last requests to the API's paths, oldest first."""
        with self._lock:
            return list(self._requests)
