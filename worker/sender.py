"""One claimed job: prepare → call → classify → judge. Runs on the pump's threads."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..ledger import Claim, Result
from ..schemas import Delivery, InvalidJob, Outcome, SendJob, Settings, from_ms, parse_send_job
from .classify import (
    classify_failure,
    classify_reply,
    invalid_job,
    page_waits,
    token_missing,
)
from .connection import Call, CallFailed
from .http_call import Endpoint
from .policy import judge_job, judge_lane
from .tokens import Tokens, fingerprint_of

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Sender:
    """Makes a result of a claim. Holds nothing of any one job, so threads share it."""

    endpoint: Endpoint
    tokens: Tokens
    settings: Settings
    jitter: Callable[[], float] = random.random

    def prepare(self, claim: Claim, without_token: set[str]) -> SendJob | Result:
        """Return the validated job, or the result of one that cannot be POSTed.

        `without_token` gathers, over a batch, the pages that have no token.
        """
        try:
            job = parse_send_job(claim.body)
        except InvalidJob as error:
            return self._unsent(claim, invalid_job(str(error)))
        if self.tokens.for_page(job.page_id) is not None:
            return job
        outcome = token_missing(job.page_id)
        if job.page_id in without_token:
            # One job tells of the missing token; the others wait with their page.
            outcome = page_waits(outcome)
        without_token.add(job.page_id)
        return self._unsent(claim, outcome)

    def send(self, claim: Claim, job: SendJob, call: Call) -> Result:
        """Make one call and return its result. Never raises."""
        began = time.monotonic()
        token = self.tokens.for_page(job.page_id)
        try:
            outcome = self._outcome(claim, job, token, call)
        except Exception as error:  # noqa: BLE001 - a claim without a recorded outcome helps nobody
            # Its text and traceback may quote the request, and so the token.
            logger.error(
                "a fault of this program in a call: %s",
                type(error).__name__,
                extra={"action": "internal_error", "job_id": claim.job_id},
            )
            outcome = classify_failure("internal_error", type(error).__name__)
        return self._result(claim, outcome, fingerprint_of(token), began, time.monotonic())

    def _outcome(self, claim: Claim, job: SendJob, token: str | None, call: Call) -> Outcome:
        if token is None:
            return token_missing(job.page_id)
        try:
            reply = self.endpoint.post(job.body(), token, call)
        except CallFailed as failure:
            return classify_failure(failure.kind, failure.detail)
        return classify_reply(
            reply,
            # By the ledger's clock, which this host's may differ from.
            now=from_ms(claim.claimed_at_ms + round((time.monotonic() - claim.claimed_at) * 1000)),
            at_most_once=claim.delivery is Delivery.AT_MOST_ONCE,
            codes=self.settings.error_code_classes,
            secret=token,
        )

    def _unsent(self, claim: Claim, outcome: Outcome) -> Result:
        now = time.monotonic()
        return self._result(claim, outcome, fingerprint_of(None), now, now)

    def _result(
        self, claim: Claim, outcome: Outcome, fingerprint: str, began: float, ended: float
    ) -> Result:
        """Judge an outcome. `began` and `ended` are on the monotonic clock."""
        return Result(
            claim=claim,
            outcome=outcome,
            job_verdict=judge_job(
                outcome,
                delivery=claim.delivery,
                attempts_spent=claim.attempts_spent,
                remaining_seconds=claim.remaining_seconds - (ended - claim.claimed_at),
                settings=self.settings,
                jitter=self.jitter(),
            ),
            lane_verdict=judge_lane(
                outcome, lane_level=claim.lane_level, token_fingerprint=fingerprint
            ),
            attempt_at_ms=claim.claimed_at_ms + round((began - claim.claimed_at) * 1000),
            attempt_duration_ms=round((ended - began) * 1000),
        )
