"""Prepare the request of a claimed job, and judge the end of its call. Only the tokens need I/O."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..ledger import Claim, Result
from ..schemas import Delivery, InvalidJob, Outcome, Settings, from_ms, parse_send_job
from .http import CallFailed, Endpoint, Reply
from .outcome.classify import (
    classify_failure,
    classify_reply,
    invalid_job,
    not_started,
    outcome_without_call,
    page_paused,
    token_missing,
)
from .outcome.policy import judge
from .tokens import Tokens, fingerprint_of

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Flight:
    """A claimed job and its call.

    `began` and `ended` are the times of the call on the monotonic clock (seconds).
    """

    claim: Claim
    #: The bytes to send, and the token that they contain.
    request: bytes = field(repr=False)
    token: str = field(repr=False)
    began: float = 0.0
    ended: float = 0.0
    ending: Reply | CallFailed | None = None


@dataclass(slots=True, kw_only=True)
class Sender:
    """Creates the request of a claim, and the result of its call."""

    endpoint: Endpoint
    tokens: Tokens
    settings: Settings
    jitter: Callable[[], float] = random.random

    def prepare(self, claim: Claim, without_token: set[str]) -> Flight | Result:
        """Return the call to make, or the result of a job that cannot be POSTed. Never raises.

        `without_token` collects the pages of the batch that have no token.
        """
        outcome = outcome_without_call(claim)
        if outcome is not None:
            return self._result(claim, outcome)
        try:
            job = parse_send_job(claim.body)
        except InvalidJob as error:
            return self._result(claim, invalid_job(str(error)))
        token = self.tokens.for_page(job.page_id)
        if token is not None:
            try:
                return Flight(claim, self.endpoint.request(job.body(), token), token)
            except Exception as error:  # noqa: BLE001 - a claim must end with a recorded outcome
                return self._result(claim, _internal_error(error, claim), token=token)
        outcome = token_missing(job.page_id)
        if job.page_id in without_token:
            # Only one job per page fails because of a missing token. The others wait for the page.
            outcome = page_paused(outcome)
        without_token.add(job.page_id)
        return self._result(claim, outcome)

    def judge(self, flight: Flight) -> Result:
        """Return the result of an ended call. Never raises."""
        try:
            outcome = self._outcome(flight)
        except Exception as error:  # noqa: BLE001 - a claim must end with a recorded outcome
            outcome = _internal_error(error, flight.claim)
        return self._result(
            flight.claim,
            outcome,
            token=flight.token,
            began=flight.began if outcome.posted else None,
            ended=flight.ended,
        )

    def _outcome(self, flight: Flight) -> Outcome:
        claim, ending = flight.claim, flight.ending
        if isinstance(ending, Reply):
            # Use the ledger's clock: this host's clock may differ. The time since the reply to the
            # claim is never too long, so that a wait until a date is never too short.
            elapsed_seconds = time.monotonic() - claim.received_at
            return classify_reply(
                ending,
                now=from_ms(claim.claimed_at_ms + round(elapsed_seconds * 1000)),
                at_most_once=claim.delivery is Delivery.AT_MOST_ONCE,
                codes=self.settings.error_code_classes,
                secret=flight.token,
            )
        if ending is None:
            raise RuntimeError("the call has not ended")
        if ending.kind == "not_started":
            return not_started()
        return classify_failure(ending.kind, ending.detail)

    def _result(
        self,
        claim: Claim,
        outcome: Outcome,
        *,
        token: str | None = None,
        began: float | None = None,
        ended: float | None = None,
    ) -> Result:
        return judge(
            claim,
            outcome,
            now=time.monotonic() if ended is None else ended,
            began=began,
            token_fingerprint=fingerprint_of(token),
            settings=self.settings,
            jitter=self.jitter(),
        )


def _internal_error(error: Exception, claim: Claim) -> Outcome:
    # The exception's text and traceback are not logged: they may contain the token.
    logger.error(
        "internal error in a call: %s",
        type(error).__name__,
        extra={"action": "internal_error", "job_id": claim.job_id},
    )
    return classify_failure("internal_error", type(error).__name__)
