"""The calls under way in one pump, and what a claim must be told of them."""

from __future__ import annotations

from collections import Counter

from .sender import Flight


class Flights:
    """Calls by job id. A job has one call at most.

    Attributes:
        by_page: how many calls each page has under way.
        possible_poisons: how many calls are of jobs whose last holder went away.
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
        """Return the calls, the oldest first."""
        return list(self._flights.values())

    def add(self, flight: Flight) -> None:
        """Count a call that begins."""
        claim = flight.claim
        self._flights[claim.job_id] = flight
        self.by_page[claim.page_id] += 1
        self.possible_poisons += claim.possible_poison

    def remove(self, flight: Flight) -> None:
        """Stop counting a call that has ended."""
        claim = flight.claim
        if self._flights.pop(claim.job_id, None) is None:
            return
        self.by_page[claim.page_id] -= 1
        if not self.by_page[claim.page_id]:
            del self.by_page[claim.page_id]
        self.possible_poisons -= claim.possible_poison
