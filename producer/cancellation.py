"""Cancel many jobs: first a count of the matching jobs, then the cancellation in steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ..ledger import CANCELABLE, AuditEntry, CanceledJobs, JobFilter, Ledger, Via, local_user
from ..schemas import State, from_ms

#: Maximum number of passes over all waiting jobs. A pass may miss jobs whose calls end during it.
_MAX_PASSES = 3


@dataclass(slots=True, kw_only=True)
class CancelReport:
    """The result of a cancellation or of its dry run.

    Attributes:
        count: number of jobs that were canceled, or would be.
        by_state, by_page, by_campaign, by_payload: the same number by these values, the most
            frequent first; jobs without a campaign are not in `by_campaign`.
        in_flight: number of matching jobs that were being sent. Their calls end normally. If such
            a call fails, the job may be retried; another cancellation cancels it.
        dry_run: whether nothing was canceled.
    """

    count: int = 0
    by_state: Counter[str] = field(default_factory=Counter)
    by_page: Counter[str] = field(default_factory=Counter)
    by_campaign: Counter[str] = field(default_factory=Counter)
    by_payload: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    dry_run: bool = False

    @property
    def counters(self) -> dict[str, Counter[str]]:
        """The counters by the name of their values."""
        return {
            "state": self.by_state,
            "page": self.by_page,
            "campaign": self.by_campaign,
            "payload": self.by_payload,
        }

    def add(self, groups: Iterable[CanceledJobs]) -> None:
        """Add the jobs of one step."""
        for group in groups:
            if group.state is State.SENDING:
                self.in_flight += group.count
                continue
            self.count += group.count
            values = (group.state.value, group.page_id, group.campaign, group.payload_id)
            for counter, value in zip(self.counters.values(), values, strict=True):
                if value:
                    counter[value] += group.count


class Cancellation:
    """One cancellation of all waiting jobs that match a filter.

    Jobs that are enqueued after the first call of `plan` or `run` are not canceled.

    Args:
        wanted: the filter. `since` and `until` bound when a job was enqueued.
        payload_ids: only jobs with one of these payloads; empty for any payload.
        by: who cancels them, for the audit; by default `user@host`.
        via: the interface that is used, for the audit.

    Raises:
        ValueError: the filter has no condition, or has a state in which no job can be canceled.
    """

    def __init__(
        self,
        ledger: Ledger,
        wanted: JobFilter,
        *,
        payload_ids: Sequence[str] = (),
        by: str | None = None,
        via: Via = "python",
    ) -> None:
        if wanted.is_empty and not payload_ids:
            raise ValueError("the filter has no condition, so it would cancel every waiting job")
        for state in wanted.states:
            if state not in CANCELABLE:
                names = ", ".join(each.value for each in CANCELABLE)
                raise ValueError(
                    f"jobs in the state {state} cannot be canceled; only those in {names} can"
                )
        self._ledger = ledger
        self._wanted = wanted
        self._payload_ids = tuple(payload_ids)
        self._is_bounded = False
        payloads = {"payload_id": list(payload_ids)} if payload_ids else {}
        self._audit = AuditEntry(
            action="cancel", by=by or local_user(), via=via, filter=wanted.as_json() | payloads
        )

    def plan(self) -> Iterator[CancelReport]:
        """Count the jobs without canceling them; yields the report like `run`.

        Raises:
            QueueUnavailable: Redis is not available.
        """
        return self._steps(dry_run=True)

    def run(self) -> Iterator[CancelReport]:
        """Cancel the jobs, some in each step; yields the same growing report after each step.

        To stop, end the iteration. Another call of `run` cancels the other jobs.

        Raises:
            QueueUnavailable: Redis is not available. The current step may have canceled jobs.
        """
        return self._steps(dry_run=False)

    def _steps(self, *, dry_run: bool) -> Iterator[CancelReport]:
        report = CancelReport(dry_run=dry_run)
        for _ in range(1 if dry_run else _MAX_PASSES):
            before, report.in_flight = report.count, 0
            for groups in self._ledger.cancel_matching(
                self._bound(), payload_ids=self._payload_ids, audit=self._audit, dry_run=dry_run
            ):
                report.add(groups)
                yield report
            if report.count == before:
                break
        # Yield a report even if no job waits.
        yield report

    def _bound(self) -> JobFilter:
        """Return the filter. Jobs that are enqueued after the first call do not match."""
        if not self._is_bounded:
            self._wanted = self._wanted.until_now(from_ms(self._ledger.reader.now_ms()))
            self._is_bounded = True
        return self._wanted
