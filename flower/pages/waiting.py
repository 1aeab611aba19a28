"""`/failures/waiting`: jobs that wait for a retry or for their time, and calling them off."""

from __future__ import annotations

from tornado.web import HTTPError, authenticated

from ...schemas import State
from .handler import PAGE_SIZE, PageHandler


class WaitingHandler(PageHandler):
    """The list, those due first coming first; a POST calls off the selected ones."""

    @authenticated
    async def get(self) -> None:
        state = self._state()
        after = self.read_cursor()
        reader = self.site.ledger.reader
        page = await self.ask(reader.waiting_page, state, after=after, limit=PAGE_SIZE)
        states = await self.ask(reader.count_states)
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
        return State.SCHEDULED if self.text_argument("state") == "scheduled" else State.RETRYING

    def _cancelled(self) -> int | None:
        """Return how many jobs the press of the button before cancelled."""
        text = self.text_argument("cancelled")
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None
