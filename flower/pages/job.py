"""`/failures/<job id>`: one job, its attempts, and how to fix its failure."""

from __future__ import annotations

from typing import Any

from tornado.web import HTTPError, authenticated

from ...ledger import CANCELABLE, AuditEntry
from ...schemas import JobRecord, ReplayRecord, State
from ...schemas.error_codes import KIND_NAMES, row_of
from ...schemas.masking import masked
from ..presentation import body_text
from .handler import PageHandler

#: States that change automatically. In these states, the page is updated.
MOVING = frozenset({State.QUEUED, State.SENDING, State.RETRYING})


class JobHandler(PageHandler):
    """One job. A POST cancels it."""

    @authenticated
    async def get(self, job_id: str) -> None:
        record = await self._record(job_id)
        with_recipient = self.text_argument("recipient") == "shown"
        # Only the latest attempts are kept; they are numbered by all there were.
        self.render(
            "failures_job.html",
            body=body_text(record, with_recipient=with_recipient),
            explanation=row_of(record.error_code or "").texts[self.language],
            first_number=record.first_kept_attempt,
            happened=record.history(),
            is_replay=lambda event: isinstance(event, ReplayRecord),
            is_cancellable=record.state in CANCELABLE,
            is_moving=record.state in MOVING,
            job=record,
            known_to_flower=job_id in self._flowers_tasks(),
            replay_kind=KIND_NAMES[row_of(record.error_code or "").replay][self.language],
            recipient=record.job["recipient"]["id"]
            if with_recipient
            else masked(record.job["recipient"]["id"]),
            with_recipient=with_recipient,
        )

    @authenticated
    async def post(self, job_id: str) -> None:
        self.forbid_if_read_only()
        action = self.text_argument("action")
        if action != "cancel":
            raise HTTPError(400, f"action={action} is not cancel.")
        entry = AuditEntry(
            action="cancel", by=self.operator, via="flower", filter={"job_id": [job_id]}
        )
        (state,) = await self.ask(self.site.ledger.cancel, [job_id], entry)
        if state is not State.CANCELLED:
            raise HTTPError(409, "The job could not be canceled: it is being sent, or has ended.")
        self.redirect(self.reverse_url("failure", job_id))

    async def _record(self, job_id: str) -> JobRecord:
        record = await self.ask(self.site.ledger.reader.get, job_id)
        if record is None:
            raise HTTPError(
                404, "No job has this id: it never existed, or its retention has ended."
            )
        return record

    def _flowers_tasks(self) -> Any:
        return self.application.events.state.tasks  # type: ignore[attr-defined]
