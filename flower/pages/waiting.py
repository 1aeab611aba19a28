"""`/failures/waiting`: waiting jobs, why they wait, and how to cancel them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from tornado.web import HTTPError, authenticated

from ...ledger import JobFilter, JobPage, Ledger, Pause
from ...schemas import JobRecord, State
from .handler import PAGE_SIZE, PageHandler

#: Maximum number of pages with queued jobs; pages with most jobs first.
_MAX_PAGES = 20
#: States that the page lists, by the name in the URL.
_STATES = {state.value: state for state in (State.RETRYING, State.SCHEDULED, State.QUEUED)}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageQueue:
    """The queued jobs of one page: their number, and the pauses of the page."""

    page_id: str
    count: int
    pauses: list[Pause]


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """The queued jobs: counts by page (paused pages first), and the latest jobs."""

    queues: list[PageQueue]
    pages_left_out: int
    jobs: list[JobRecord]


class WaitingHandler(PageHandler):
    """Jobs in one state. A POST cancels the selected ones."""

    @authenticated
    async def get(self) -> None:
        state = self._state()
        states = await self.ask(self.site.ledger.reader.count_states)
        if state is State.QUEUED:
            page_id = self.text_argument("page_id")
            queued = await self.ask(_queued, self.site.ledger, page_id)
            self.render(
                "failures_queued.html",
                cancelled=self._cancelled(),
                page_id=page_id,
                queued=queued,
                state=state,
                states=states,
            )
            return
        after = self.read_cursor()
        page: JobPage = await self.ask(
            self.site.ledger.reader.waiting_page, state, after=after, limit=PAGE_SIZE
        )
        self.render(
            "failures_waiting.html",
            after=after,
            cancelled=self._cancelled(),
            page=page,
            state=state,
            states=states,
        )

    @authenticated
    async def post(self) -> None:
        self.forbid_if_read_only()
        job_ids = self.get_arguments("job_id")[: 2 * PAGE_SIZE]
        if not job_ids:
            raise HTTPError(400, "No job was selected.")
        states = await self.ask(self.site.ledger.cancel, job_ids)
        cancelled = sum(state is State.CANCELLED for state in states)
        here = self.reverse_url("waiting")
        self.redirect(f"{here}?state={self._state().value}&cancelled={cancelled}")

    def _state(self) -> State:
        return _STATES.get(self.text_argument("state"), State.RETRYING)

    def _cancelled(self) -> int | None:
        """Return the number of jobs that the previous POST canceled."""
        text = self.text_argument("cancelled")
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _queued(ledger: Ledger, page_id: str) -> Queued:
    """Read the queued jobs. `page_id` restricts the list to one page; "" means all pages."""
    counts = ledger.reader.waiting_by_page(limit=None)
    pauses: dict[str, list[Pause]] = defaultdict(list)
    for pause in ledger.reader.pauses():
        pauses[pause.page_id].append(pause)
    queues = [
        PageQueue(page_id=page, count=count, pauses=pauses[page])
        for page, count in counts.items()
        if count
    ]
    # They are already sorted by count. A stable sort keeps this order.
    queues.sort(key=lambda queue: not queue.pauses)
    wanted = JobFilter(states=(State.QUEUED,), page_ids=(page_id,) if page_id else ())
    return Queued(
        queues=queues[:_MAX_PAGES],
        pages_left_out=max(0, len(queues) - _MAX_PAGES),
        jobs=ledger.reader.find(wanted, PAGE_SIZE),
    )
