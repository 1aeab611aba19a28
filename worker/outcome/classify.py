"""What a reply, or the lack of one, means: exactly one of six classes. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType

from ...ledger import Claim
from ...schemas import ApiReply, Outcome, OutcomeClass, parse_reply
from ...schemas.error_codes import class_of, is_final
from ..http import Reply
from .retry_after import parse_retry_after

_NO_CODES: Mapping[str, OutcomeClass] = MappingProxyType({})


def classify_reply(
    reply: Reply,
    *,
    now: datetime,
    at_most_once: bool = False,
    codes: Mapping[str, OutcomeClass] = _NO_CODES,
    secret: str | None = None,
) -> Outcome:
    """Return how the attempt ended that got `reply`.

    Args:
        now: the time that an HTTP date in `Retry-After` is reckoned from (aware).
        at_most_once: a status that leaves open whether the message went out is then ambiguous.
        codes: error codes to know beside the built-in ones.
        secret: the token, which the API might echo; it is cut out of what is kept.
    """
    api = parse_reply(reply.body, secret=secret) if reply.body is not None else None
    outcome_class, own_code = _class(reply, api, codes, at_most_once=at_most_once)
    api_code = api.error_code if api else None
    # Of the classes that may be tried again; an ambiguous reply's wish counts like any other's.
    may_wait = outcome_class in (
        OutcomeClass.TRANSIENT,
        OutcomeClass.THROTTLED,
        OutcomeClass.AMBIGUOUS,
    )
    return Outcome(
        outcome_class=outcome_class,
        error_code=None if outcome_class is OutcomeClass.ACCEPTED else api_code or own_code,
        error_message=_message(reply, api, outcome_class, own_code),
        http_status=reply.status,
        retry_after_seconds=(
            parse_retry_after(reply.retry_after, date=reply.date, now=now) if may_wait else None
        ),
        final=is_final(api_code),
    )


def _class(
    reply: Reply, api: ApiReply | None, codes: Mapping[str, OutcomeClass], *, at_most_once: bool
) -> tuple[OutcomeClass, str]:
    """Return the class, and our own code for where the API gave none."""
    status = reply.status
    own_code = f"http_{status}"
    success = 200 <= status < 300
    refusal = 400 <= status < 500

    # "Sent in spite of the error" holds whatever the status.
    if api is not None and api.has_error and (success or refusal or is_final(api.error_code)):
        known = class_of(api.error_code, codes)
        if known is not None:
            return known, own_code
        if success:
            return OutcomeClass.PERMANENT, "unspecified"
    if success:
        if api is None:
            # The message may well have been processed: this reply just does not say.
            return OutcomeClass.AMBIGUOUS, "invalid_response"
        if api.success:
            return OutcomeClass.ACCEPTED, ""
        return OutcomeClass.PERMANENT, "not_accepted"
    if 300 <= status < 400:
        # Never followed: the token would travel to wherever it points.
        return OutcomeClass.PERMANENT, "redirected"
    if status in (401, 403):
        return OutcomeClass.AUTH, own_code
    if status == 429:
        return OutcomeClass.THROTTLED, own_code
    if status in (500, 504) and at_most_once:
        # Raised while processing, or behind a gateway that gave up waiting: it may have gone out.
        return OutcomeClass.AMBIGUOUS, own_code
    if status == 408 or 500 <= status < 600:
        return OutcomeClass.TRANSIENT, own_code
    if refusal:
        return OutcomeClass.PERMANENT, "unspecified" if api and api.has_error else own_code
    # A final status below 200 or from 600 up is no HTTP: nobody can know.
    return OutcomeClass.AMBIGUOUS, "invalid_response"


#: Our own codes in words, for where the API says nothing.
_MESSAGES = {
    "not_accepted": "the API reported no error, but no success either",
    "unspecified": "the API reported an error without saying which",
    "redirected": "the API redirected the request; redirects are not followed",
    "invalid_response": "the reply is not what the API documents; the message may have gone out",
}


def _message(
    reply: Reply, api: ApiReply | None, outcome_class: OutcomeClass, own_code: str
) -> str | None:
    if outcome_class is OutcomeClass.ACCEPTED:
        return None
    if api is not None and api.error_message:
        return api.error_message
    return _MESSAGES.get(own_code, f"the API answered with HTTP status {reply.status}")


#: How a call that got no reply is classified: kind → (class, message).
_FAILURES = {
    "connection_failed": (OutcomeClass.TRANSIENT, "no connection; the request did not go out"),
    "connection_lost": (
        OutcomeClass.AMBIGUOUS,
        "the connection ended without a reply; the message may have gone out",
    ),
    "timeout": (OutcomeClass.AMBIGUOUS, "no reply in time; the message may have gone out"),
    "internal_error": (
        OutcomeClass.AMBIGUOUS,
        "a fault of this program, see its log; the message may have gone out",
    ),
}


def classify_failure(kind: str, detail: str = "") -> Outcome:
    """Return how the attempt ended that got no reply at all.

    `kind` is connection_failed, connection_lost, timeout or internal_error; it is the error code.
    """
    outcome_class, message = _FAILURES[kind]
    return Outcome(
        outcome_class=outcome_class,
        error_code=kind,
        error_message=f"{message} ({detail})" if detail else message,
    )


def token_missing(page_id: str) -> Outcome:
    """Return the outcome of a job whose page has no token; no POST is made."""
    return Outcome(
        outcome_class=OutcomeClass.AUTH,
        error_code="token_missing",
        error_message=f"no token is set for page {page_id}: see HARASOCIAL_TOKENS_FILE",
        posted=False,
    )


def page_waits(reason: Outcome) -> Outcome:
    """Return the outcome of a job that is not sent since its page pauses for `reason`."""
    return replace(reason, outcome_class=OutcomeClass.THROTTLED)


def outcome_without_call(claim: Claim) -> Outcome | None:
    """Return how a claimed job ends for which no call is made, or None if it is to be sent."""
    if claim.defect is not None:
        return invalid_job(claim.defect)
    if claim.lease_ended:
        # Its holder died or is cut off: it may have sent the message.
        return Outcome(
            outcome_class=OutcomeClass.AMBIGUOUS,
            error_code="unknown_outcome",
            error_message="the worker that was sending it went away; the message may have gone out",
        )
    if claim.remaining_seconds <= 0:
        return Outcome(
            outcome_class=OutcomeClass.PERMANENT,
            error_code="expired",
            error_message="its deadline passed before it could be sent",
            posted=False,
        )
    return None


def invalid_job(reason: str) -> Outcome:
    """Return the outcome of a stored job that does not validate; no POST is made."""
    return Outcome(
        outcome_class=OutcomeClass.PERMANENT,
        error_code="invalid_job",
        error_message=reason,
        posted=False,
    )
