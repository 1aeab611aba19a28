"""Classify the end of a call: exactly one outcome class. Pure functions.

This module determines the error code. The row of the code in `schemas/error_codes.py` has the
class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType

from ...ledger import Claim
from ...schemas import ApiReply, Outcome, OutcomeClass, parse_reply
from ...schemas.error_codes import (
    UNKNOWN,
    ErrorCode,
    Subject,
    class_of,
    find_api_code,
    find_fallback_code,
)
from ..http import Reply
from .call_limit import parse_call_limit
from .retry_after import parse_retry_after

_NO_CODES: Mapping[str, OutcomeClass] = MappingProxyType({})
#: The row for a code that is only in the operator's list.
_LISTED = replace(UNKNOWN, about=Subject.OTHER)
#: The classes for which `Retry-After` is used.
_MAY_WAIT = frozenset(
    (
        OutcomeClass.TRANSIENT,
        OutcomeClass.THROTTLED,
        OutcomeClass.APP_THROTTLED,
        OutcomeClass.RESTRICTED,
        OutcomeClass.AMBIGUOUS,
    )
)


def classify_reply(
    reply: Reply,
    *,
    now: datetime,
    at_most_once: bool = False,
    codes: Mapping[str, OutcomeClass] = _NO_CODES,
    secret: str | None = None,
) -> Outcome:
    """Return the outcome of an attempt that got `reply`.

    Args:
        now: the current time (aware), for an HTTP date in `Retry-After`.
        at_most_once: whether the job must not be sent twice. If the message may have been sent
            despite the error, the outcome is then ambiguous.
        codes: the operator's classes of error codes. They take precedence over the table.
        secret: the token, which the API might echo. It is removed from the texts.
    """
    api = parse_reply(reply.body, secret=secret) if reply.body is not None else None
    call_limit = parse_call_limit(reply.call_limit)
    if api is not None and api.success and not api.has_error and 200 <= reply.status < 300:
        return Outcome(
            outcome_class=OutcomeClass.ACCEPTED, http_status=reply.status, call_limit=call_limit
        )
    api_code = api.error_code if api else None
    api_row = find_api_code(api_code)
    fallback_code = _fallback_code(reply.status, api)
    row = _fallback_row(fallback_code)
    outcome_class = row.outcome_class
    if _is_refusal(reply.status, api, api_row):
        known = class_of(api_code, codes)
        if known is not None:
            row, outcome_class = api_row or _LISTED, known
    if at_most_once and row.may_have_been_sent and outcome_class is OutcomeClass.TRANSIENT:
        outcome_class = OutcomeClass.AMBIGUOUS
    return Outcome(
        outcome_class=outcome_class,
        error_code=api_code or fallback_code,
        error_message=_message(reply, api, fallback_code),
        http_status=reply.status,
        retry_after_seconds=(
            parse_retry_after(reply.retry_after, date=reply.date, now=now)
            if outcome_class in _MAY_WAIT
            else None
        ),
        final=api_row is not None and api_row.was_sent,
        about_page=outcome_class is OutcomeClass.PERMANENT and row.about is Subject.PAGE,
        about_person=row.about is Subject.PERSON,
        call_limit=call_limit,
    )


def _is_refusal(status: int, api: ApiReply | None, row: ErrorCode | None) -> bool:
    """Return whether the error code, rather than the status, determines the class."""
    if api is None or not api.has_error:
        return False
    # A message that was sent despite the error must not be sent again, even for other statuses.
    return 200 <= status < 300 or 400 <= status < 500 or (row is not None and row.was_sent)


def _fallback_code(status: int, api: ApiReply | None) -> str:
    """Return this package's code for a reply without success and without a code."""
    has_error = api is not None and api.has_error
    if 200 <= status < 300 and api is not None:
        return "unspecified" if has_error else "not_accepted"
    if 300 <= status < 400:
        # Never follow a redirect: the token would go to the new address.
        return "redirected"
    if 400 <= status < 600:
        code = f"http_{status}"
        is_permanent = _fallback_row(code).outcome_class is OutcomeClass.PERMANENT
        return "unspecified" if has_error and is_permanent else code
    # The message may have been processed. A status below 200 or above 599 is not a valid final
    # status.
    return "invalid_response"


#: Messages of this package's codes, if the reply has no message.
_MESSAGES = {
    "not_accepted": "the API reported neither an error nor success",
    "unspecified": "the API reported an error without an error code",
    "redirected": "the API redirected the request; redirects are not followed",
    "invalid_response": "the reply is not as documented; the message may have gone out",
}


def _message(reply: Reply, api: ApiReply | None, fallback_code: str) -> str:
    if api is not None and api.error_message:
        return api.error_message
    return _MESSAGES.get(fallback_code, f"the API replied with HTTP status {reply.status}")


#: Messages of calls that got no reply.
_FAILURES = {
    "connection_failed": "no connection; the request did not go out",
    "connection_lost": "the connection ended without a reply; the message may have gone out",
    "timeout": "no reply in time; the message may have gone out",
    "internal_error": "internal error, see the worker's log; the message may have gone out",
}


def classify_failure(kind: str, detail: str = "") -> Outcome:
    """Return the outcome of an attempt without a reply.

    `kind` is the error code: connection_failed, connection_lost, timeout or internal_error.
    """
    message = _FAILURES[kind]
    return _fallback_outcome(kind, f"{message} ({detail})" if detail else message)


def _fallback_outcome(code: str, message: str, *, posted: bool = True) -> Outcome:
    """Return the outcome for one of this package's codes."""
    return Outcome(
        outcome_class=_fallback_row(code).outcome_class,
        error_code=code,
        error_message=message,
        posted=posted,
    )


def _fallback_row(code: str) -> ErrorCode:
    row = find_fallback_code(code)
    if row is None:
        raise ValueError(f"{code} has no row in the table of error codes")
    return row


def token_missing(page_id: str) -> Outcome:
    """Return the outcome of a job whose page has no token. No POST is made."""
    message = f"no token is set for page {page_id}: see HARASOCIAL_TOKENS_FILE"
    return _fallback_outcome("token_missing", message, posted=False)


def page_paused(reason: Outcome) -> Outcome:
    """Return the outcome of a job that is not sent because its page pauses for `reason`."""
    return replace(reason, outcome_class=OutcomeClass.THROTTLED)


def not_started() -> Outcome:
    """Return the outcome of a job that was released because its request could not begin in time."""
    return Outcome(outcome_class=OutcomeClass.THROTTLED, posted=False)


def outcome_without_call(claim: Claim) -> Outcome | None:
    """Return the outcome of a claimed job that must not be sent, or None if it must be sent."""
    if claim.defect is not None:
        return invalid_job(claim.defect)
    if claim.lease_ended:
        # The claim's owner died or lost its connection to Redis. It may have sent the message.
        return _fallback_outcome(
            "unknown_outcome",
            "the worker stopped while sending; the message may have gone out",
        )
    if claim.remaining_seconds <= 0:
        message = "the deadline passed before the message was sent"
        return _fallback_outcome("expired", message, posted=False)
    return None


def invalid_job(reason: str) -> Outcome:
    """Return the outcome of a stored job that is not valid. No POST is made."""
    return _fallback_outcome("invalid_job", reason, posted=False)
