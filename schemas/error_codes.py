"""The error codes that are known: their class, what they mean, and what to do about them. Pure.

They are Messenger's and Graph's, which the API may pass on: compound as `code/subcode`, or either
alone. Sources: the Messenger Platform and Graph API error references. Where those disagree (551),
the safe side, no retry, holds. `ERROR_CODE_CLASSES` adds to the list and comes before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from .states import OutcomeClass

_BY_CLASS = {
    OutcomeClass.TRANSIENT: "1 2 1200 1200/2018024",
    OutcomeClass.THROTTLED: "4 17 32 341 613 80006",
    OutcomeClass.AUTH: "102 190",
    # Sent in spite of the error; see `FINAL`.
    OutcomeClass.AMBIGUOUS: "1/1357046",
    OutcomeClass.PERMANENT: (
        # a permission that the page or app lacks
        "3 10 1/99 2/2018344 " + " ".join(str(code) for code in range(200, 300)) + " "
        # the messaging window is closed
        "10/2018278 10/2018065 2534022 4/2018354 "
        # the person is unavailable; a bad parameter; a duplicate; blocked for abuse
        "10/2018108 200/1545041 551 551/1545041 100 100/2018001 100/2018109 506 368"
    ),
}

#: Ambiguous for good: the message was sent although the reply is an error.
FINAL = frozenset({"1/1357046", "1357046"})

#: A subcode this long means the same whatever code it comes with, so it may stand alone.
_UNIQUE_SUBCODE_DIGITS = 6


def unique_subcode(error_code: str) -> str:
    """Return the subcode of a compound `code/subcode` that says enough by itself, or ""."""
    subcode = error_code.partition("/")[2]
    return subcode if len(subcode) >= _UNIQUE_SUBCODE_DIGITS else ""


def _with_lone_subcodes(table: Mapping[str, OutcomeClass]) -> Mapping[str, OutcomeClass]:
    lone = {
        subcode: outcome_class
        for code, outcome_class in table.items()
        if (subcode := unique_subcode(code))
    }
    return MappingProxyType(lone | dict(table))


KNOWN: Mapping[str, OutcomeClass] = _with_lone_subcodes(
    {code: outcome_class for outcome_class, codes in _BY_CLASS.items() for code in codes.split()}
)


def class_of(
    error_code: str | None, extra: Mapping[str, OutcomeClass] = MappingProxyType({})
) -> OutcomeClass | None:
    """Return the class of an API error code, or None if it is not known.

    A compound `code/subcode` that is not listed falls back to its subcode, if that means the same
    with any code, and then to its code. `extra` comes first.
    """
    if error_code is None:
        return None
    names = (error_code, unique_subcode(error_code), error_code.partition("/")[0])
    for table in (_with_lone_subcodes(extra), KNOWN):
        for name in names:
            if name and name in table:
                return table[name]
    return None


def is_final(error_code: str | None) -> bool:
    """Return whether the code says that the message was sent in spite of the error."""
    return error_code is not None and (error_code in FINAL or unique_subcode(error_code) in FINAL)


class Explanation(NamedTuple):
    """One error code in words: what it means, and what to do about it."""

    meaning: str
    remedy: str


_WAITS_BY_ITSELF = "Nothing: the page waits and goes on by itself; set HARASOCIAL_PAGE_RATE lower."
_WINDOW = Explanation(
    "The messaging window is closed: the person has not written to the page lately.",
    "Do not replay until the person has written again; then the window is open for 24 hours.",
)
_UNAVAILABLE = Explanation(
    "The person cannot be reached: they blocked the page, left, or turned messages off.",
    "Do not replay; stop sending to this person.",
)
_PERMISSION = Explanation(
    "The page or app lacks a permission that this message needs.",
    "Grant the permission (connect the page to Harasocial again), then replay.",
)
_TOKEN = Explanation(
    "The token expired, was revoked, or belongs to another page.",
    "Put a new token into HARASOCIAL_TOKEN or HARASOCIAL_TOKENS_FILE; the page goes on, then "
    "replay.",
)
_PASSING = Explanation(
    "A passing fault on Messenger's side; the attempts were used up while it lasted.",
    "Replay when Messenger works again.",
)
_PARAMETER = Explanation(
    "Messenger found something in the message wrong: an id, or the payload's content.",
    "Check page_id, recipient id and payload_id; correct the content in Harasocial, then replay.",
)
_API_WORKS_AGAIN = "Replay when the API works again."
_FIRST_MAY_HAVE_GONE_OUT = "Replay when it works again; a first attempt may still have gone out."
_MAY_HAVE_GONE_OUT = (
    "Look into the conversation first: a replay may send the message a second time."
)

#: By the API's code; one that is compound there, `code/subcode`, may come as the subcode alone.
_OF_API = {
    "1": _PASSING,
    "1/99": _PERMISSION,
    "1/1357046": Explanation(
        "The API reported an error although the message was sent.",
        "Do not replay: the message has arrived.",
    ),
    "2": _PASSING,
    "2/2018344": Explanation(
        "The page has not accepted Messenger's privacy terms for custom labels.",
        "Let an admin of the page accept them in its inbox, then replay.",
    ),
    "3": Explanation(
        "The app lacks a capability that this message needs.",
        "Have the app reviewed for it at Meta, then replay.",
    ),
    "4": Explanation("The app sends more than its limit allows.", _WAITS_BY_ITSELF),
    "4/2018354": Explanation(
        "This person got a marketing message too short a while ago.",
        "Do not replay now; leave this person out until the delay between messages is over.",
    ),
    "10": _PERMISSION,
    "10/2018065": _WINDOW,
    "10/2018108": _UNAVAILABLE,
    "10/2018278": _WINDOW,
    "17": Explanation("Too many calls for one account.", _WAITS_BY_ITSELF),
    "32": Explanation("Too many calls for this page.", _WAITS_BY_ITSELF),
    "100": _PARAMETER,
    "100/2018001": Explanation(
        "No person with this id on this page.",
        "Check that the recipient's id was issued for this page_id; ids differ from page to page.",
    ),
    "100/2018109": Explanation(
        "An attachment of the message is larger than allowed.",
        "Make the attachment smaller in Harasocial, then replay.",
    ),
    "102": _TOKEN,
    "190": _TOKEN,
    "200": _PERMISSION,
    "200/1545041": _UNAVAILABLE,
    "341": Explanation("The app sends more than its limit allows.", _WAITS_BY_ITSELF),
    "368": Explanation(
        "The page is blocked for a while: its messages broke Messenger's policies.",
        "Look for Meta's notice to the page; replay once the block is lifted.",
    ),
    "506": Explanation(
        "Messenger takes it for a duplicate of a message just sent.",
        "Look into the conversation: most likely the message has arrived already.",
    ),
    "551": _UNAVAILABLE,
    "551/1545041": _UNAVAILABLE,
    "613": Explanation("Calls came faster than the API's limit allows.", _WAITS_BY_ITSELF),
    "1200": _PASSING,
    "1200/2018024": _PASSING,
    "2534022": _WINDOW,
    "80006": Explanation("The page sends more than its limit allows.", _WAITS_BY_ITSELF),
}

#: This package's own codes, for where the API gave none.
_OWN = {
    "connection_failed": Explanation(
        "No connection to the API came about; nothing was sent.",
        "Check the network, DNS and HARASOCIAL_API_URL of the worker's host, then replay.",
    ),
    "connection_lost": Explanation(
        "The connection ended before the reply came: the message may have gone out.",
        _MAY_HAVE_GONE_OUT,
    ),
    "expired": Explanation(
        "Its deadline passed before it could be sent.",
        "Replay only if the message is still of use; see why its page waited (paused, or slow).",
    ),
    "internal_error": Explanation(
        "A fault of this program while sending; the worker's log names it.",
        "Report it, and look into the conversation before a replay: it may have gone out.",
    ),
    "invalid_job": Explanation(
        "What is stored of the job is no valid message; it was not written by enqueue.",
        "Do not replay; find out who writes to this Redis, and enqueue the message anew.",
    ),
    "invalid_response": Explanation(
        "The reply was not what the API documents: the message may have gone out.",
        _MAY_HAVE_GONE_OUT,
    ),
    "not_accepted": Explanation(
        "The API reported neither an error nor success.",
        "Ask Harasocial's support what became of it before a replay.",
    ),
    "redirected": Explanation(
        "The API answered with a redirect, which is not followed: the token would travel.",
        "Correct HARASOCIAL_API_URL, then replay.",
    ),
    "timeout": Explanation(
        "No reply came in time: the message may have gone out.", _MAY_HAVE_GONE_OUT
    ),
    "token_missing": Explanation(
        "No token is set for this page.",
        "Add one to HARASOCIAL_TOKENS_FILE (or set HARASOCIAL_TOKEN), then replay.",
    ),
    "unknown_outcome": Explanation(
        "The worker that was sending it went away: the message may have gone out.",
        _MAY_HAVE_GONE_OUT,
    ),
    "unspecified": Explanation(
        "The API reported an error without saying which.",
        "Read its message, if there is one, and ask Harasocial's support.",
    ),
}

_HTTP = {
    400: Explanation(
        "The API could not read the request.",
        "Check HARASOCIAL_API_URL, and whether a newer version of this package is out.",
    ),
    401: Explanation("The API does not know the token.", _TOKEN.remedy),
    403: Explanation(
        "The token may not send: its scope social.conv is missing, or the page is not its own.",
        "Issue a token with the scope social.conv for this page; the page goes on, then replay.",
    ),
    404: Explanation(
        "The API has nothing at this address.", "Correct HARASOCIAL_API_URL, then replay."
    ),
    408: Explanation(
        "The API waited too long for the request.", "Check the worker's network, then replay."
    ),
    413: Explanation("The message is larger than the API allows.", "Shorten its metadata."),
    415: Explanation(
        "The API refused the request's content type.",
        "Check HARASOCIAL_API_URL, and whether a newer version of this package is out.",
    ),
    429: Explanation("Too many calls.", _WAITS_BY_ITSELF),
    500: Explanation("The API failed while it handled the message.", _FIRST_MAY_HAVE_GONE_OUT),
    502: Explanation("The API could not be reached behind its gateway.", _API_WORKS_AGAIN),
    503: Explanation("The API was overloaded or down for maintenance.", _API_WORKS_AGAIN),
    504: Explanation("The API's gateway got no answer in time.", _FIRST_MAY_HAVE_GONE_OUT),
}

#: For a code that `explain` does not know.
UNKNOWN = Explanation(
    "This version does not know the code; the message is the API's own.",
    "Read the message, and replay once its cause is gone. If that goes by itself, have the code "
    "retried: HARASOCIAL_ERROR_CODE_CLASSES.",
)

_BY_SUBCODE = {
    subcode: explanation
    for code, explanation in _OF_API.items()
    if (subcode := unique_subcode(code))
}


def explain_any(error_code: str | None) -> Explanation:
    """Return what `explain` does, or `UNKNOWN`."""
    return explain(error_code) or UNKNOWN


def explain(error_code: str | None) -> Explanation | None:
    """Return what `error_code` means and what to do, or None if it is not known.

    A compound `code/subcode` that is not listed is explained by its subcode, else by its code.
    """
    if not error_code:
        return None
    code, _, subcode = error_code.partition("/")
    found = (
        _OWN.get(error_code)
        or _OF_API.get(error_code)
        or _BY_SUBCODE.get(subcode or code)
        or _OF_API.get(code)
    )
    if found is not None:
        return found
    if len(code) == 3 and code.isascii() and code.isdecimal() and code.startswith("2"):
        return _PERMISSION
    return _of_http(error_code)


def _of_http(error_code: str) -> Explanation | None:
    prefix, _, digits = error_code.partition("_")
    if prefix != "http" or len(digits) != 3 or not (digits.isascii() and digits.isdecimal()):
        return None
    status = int(digits)
    if status in _HTTP:
        return _HTTP[status]
    if 400 <= status < 500:
        return Explanation(
            f"The API refused the request with HTTP status {status}.",
            "Read its message; check HARASOCIAL_API_URL, page_id and payload_id, then replay.",
        )
    if 500 <= status < 600:
        return Explanation(f"The API failed with HTTP status {status}.", _API_WORKS_AGAIN)
    return None
