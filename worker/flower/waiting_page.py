"""`/failures/waiting`: jobs that wait for a retry or for their time, and calling them off."""

from __future__ import annotations

from tornado.web import HTTPError, authenticated

from ...ledger import Place
from ...schemas import State
from .page import Page

PAGE_SIZE = 50
_LISTED = (State.RETRYING, State.SCHEDULED)


class WaitingPage(Page):
    """The list, those due first coming first; a POST calls off the selected ones."""

    @authenticated
    async def get(self) -> None:
        state = State.SCHEDULED if self.text_argument("state") == "scheduled" else State.RETRYING
        text = self.text_argument("after")
        try:
            after = Place.parse(text) if text else None
        except ValueError as error:
            raise HTTPError(400, str(error)) from None
        waiting = self.site.ledger.waiting
        page = await self.ask(waiting.page, state, after=after, limit=PAGE_SIZE)
        states = await self.ask(self.site.ledger.lookup.count_states)
        cancelled = self.text_argument("cancelled")
        self.show(
            "failures_waiting.html",
            after=after,
            cancelled=int(cancelled) if cancelled.isascii() and cancelled.isdecimal() else None,
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
        state = "scheduled" if self.text_argument("state") == "scheduled" else "retrying"
        self.redirect(f"{self.reverse_url('waiting')}?state={state}&cancelled={cancelled}")
