"""The calls in flight of a pump, with the counts that a claim needs."""

from __future__ import annotations

from collections import Counter

from .sender import Flight


class Flights:
    """Calls in flight by job id. A job has at most one call.

    Attributes:
        by_page: the number of calls in flight of each page.
        possible_poisons: the number of calls for jobs whose last worker died.
    """

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}
        self.by_page: Counter[str] = Counter()
        self.possible_poisons = 0

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._flights

    def all(self) -> list[Flight]:
        """Return the calls, oldest first."""
        return list(self._flights.values())

    def add(self, flight: Flight) -> None:
        """Add a call that begins."""
        claim = flight.claim
        self._flights[claim.job_id] = flight
        self.by_page[claim.page_id] += 1
        self.possible_poisons += claim.possible_poison

    def remove(self, flight: Flight) -> None:
        """Remove a call that has ended."""
        claim = flight.claim
        if self._flights.pop(claim.job_id, None) is None:
            return
        self.by_page[claim.page_id] -= 1
        if not self.by_page[claim.page_id]:
            del self.by_page[claim.page_id]
        self.possible_poisons -= claim.possible_poison
