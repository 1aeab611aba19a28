"""`/cancellations`: cancel jobs by a filter, after a count and a confirmation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tornado.web import HTTPError, authenticated

from ...ledger import JobFilter
from ...producer.cancellation import Cancellation, CancelReport
from ...schemas import State
from ..cancellations import WORKING, CancelStage, TrackedCancellation
from ..filters import any_of
from .handler import PageHandler

#: Maximum number of values of each kind in the breakdown.
_MAX_SHOWN = 10


class CancellationsHandler(PageHandler):
    """A POST counts the jobs of a filter. Nothing is canceled before the confirmation."""

    @authenticated
    async def post(self) -> None:
        self.forbid_if_read_only()
        tracked = self._tracked()
        self.site.cancellations.plan(tracked)
        self.redirect(self.reverse_url("cancellation", tracked.cancellation_id))

    def _tracked(self) -> TrackedCancellation:
        payload_ids = self._values("payload_id")
        try:
            wanted = JobFilter(
                states=tuple(map(State, self._values("state"))),
                page_ids=tuple(self._values("page_id")),
                campaigns=tuple(self._values("campaign")),
                since=self.time_argument("since"),
                until=self.time_argument("until"),
            )
            cancellation = Cancellation(
                self.site.ledger,
                wanted,
                payload_ids=payload_ids,
                by=self.operator,
                via="flower",
            )
        except ValueError as error:
            raise HTTPError(400, f"{str(error)[:1].upper()}{str(error)[1:]}.") from None
        return TrackedCancellation(about=_describe(wanted, payload_ids), cancellation=cancellation)

    def _values(self, name: str) -> list[str]:
        return [text.strip() for text in self.text_arguments(name) if text.strip()]


class CancellationHandler(PageHandler):
    """One cancellation. A POST starts or stops it."""

    @authenticated
    async def get(self, cancellation_id: str) -> None:
        tracked = self._cancellation(cancellation_id)
        # Read the stage first, so that a page with a complete count shows all of it.
        now = tracked.stage
        plan = tracked.plan
        self.render(
            "failures_cancellation.html",
            breakdown=[
                (title, counter.most_common(_MAX_SHOWN), max(0, len(counter) - _MAX_SHOWN))
                for title, counter in _copies(plan).items()
                if counter
            ],
            is_working=now in WORKING,
            now=now,
            stage=CancelStage,
            tracked=tracked,
        )

    @authenticated
    async def post(self, cancellation_id: str) -> None:
        self.forbid_if_read_only()
        tracked = self._cancellation(cancellation_id)
        action = self.text_argument("action")
        if action == "start":
            done = self.site.cancellations.start(tracked)
        elif action == "stop":
            done = self.site.cancellations.stop(tracked)
        else:
            raise HTTPError(400, f"action={action} is neither start nor stop.")
        if not done:
            raise HTTPError(409, f"This cancellation is {tracked.stage.value}.")
        self.redirect(self.reverse_url("cancellation", cancellation_id))

    def _cancellation(self, cancellation_id: str) -> TrackedCancellation:
        tracked = self.site.cancellations.get(cancellation_id)
        if tracked is None:
            raise HTTPError(
                404,
                "No cancellation has this id since the start of Flower. The audit has what "
                "earlier ones canceled.",
            )
        return tracked


def _copies(report: CancelReport) -> dict[str, Counter[str]]:
    """Return copies of the counters, because the cancellation's thread may change them."""
    return {name: Counter(dict(counter)) for name, counter in report.counters.items()}


def _describe(wanted: JobFilter, payload_ids: Sequence[str]) -> str:
    states = any_of([state.value for state in wanted.states]) if wanted.states else "waiting"
    parts = [f"{states} jobs"]
    for name, values in (
        ("page", wanted.page_ids),
        ("campaign", wanted.campaigns),
        ("payload", payload_ids),
    ):
        if values:
            parts.append(f"of {name} {any_of(values)}")
    if wanted.since:
        parts.append(f"enqueued from {wanted.since:%Y-%m-%d %H:%M:%S} UTC")
    if wanted.until:
        parts.append(f"enqueued until {wanted.until:%Y-%m-%d %H:%M:%S} UTC")
    return " ".join(parts)
