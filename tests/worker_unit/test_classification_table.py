"""The tables of outcome classes: each row, and exactly one class for every reply."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import pytest
from harasocial_dispatch.schemas import CallLimit, Outcome, OutcomeClass, parse_reply
from harasocial_dispatch.worker.http import Reply
from harasocial_dispatch.worker.outcome.classify import (
    classify_failure,
    classify_reply,
    invalid_job,
    page_paused,
    token_missing,
)
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=timezone.utc)
ACCEPTED = b'{"data":{"success":true},"has_error":false,"error_code":null,"error_message":null}'
HTML = b"<html><body>Bad Gateway</body></html>"
SECRET = "EAAB-secret-token"

accepted, permanent, transient, throttled, app_throttled, restricted, auth, ambiguous = (
    OutcomeClass.ACCEPTED,
    OutcomeClass.PERMANENT,
    OutcomeClass.TRANSIENT,
    OutcomeClass.THROTTLED,
    OutcomeClass.APP_THROTTLED,
    OutcomeClass.RESTRICTED,
    OutcomeClass.AUTH,
    OutcomeClass.AMBIGUOUS,
)


def classify(
    status: int, body: bytes | None, codes: Mapping[str, OutcomeClass] | None = None, **more: Any
) -> Outcome:
    at_most_once = more.pop("at_most_once", False)
    return classify_reply(
        Reply(status=status, body=body, **more),
        now=NOW,
        at_most_once=at_most_once,
        codes=codes or {},
        secret=SECRET,
    )


def refusal(code: Any = None, message: Any = None) -> bytes:
    return json.dumps(
        {
            "data": {"success": False},
            "has_error": True,
            "error_code": code,
            "error_message": message,
        }
    ).encode()


#: The rows for replies: (name, status, body, class, error_code).
SIGNALS = [
    ("2xx, no error, success true", 200, ACCEPTED, accepted, None),
    ("2xx, no error, success true", 201, ACCEPTED, accepted, None),
    ("2xx, no error, success true", 299, ACCEPTED, accepted, None),
    (
        "2xx, no error, success false",
        200,
        b'{"has_error":false,"data":{"success":false}}',
        permanent,
        "not_accepted",
    ),
    (
        "2xx, no error, success absent",
        200,
        b'{"has_error":false,"data":{}}',
        permanent,
        "not_accepted",
    ),
    (
        "2xx, no error, data null",
        200,
        b'{"has_error":false,"data":null}',
        permanent,
        "not_accepted",
    ),
    ("2xx, no error, data absent", 200, b'{"has_error":false}', permanent, "not_accepted"),
    (
        "2xx, no error, no success, but a code",
        200,
        b'{"has_error":false,"data":{"success":false},"error_code":"E7"}',
        permanent,
        "E7",
    ),
    ("2xx with an error, no code", 200, refusal(), permanent, "unspecified"),
    ("2xx with an error, blank code", 200, refusal(" "), permanent, "unspecified"),
    ("2xx with an error, unknown code", 200, refusal("E7"), permanent, "E7"),
    (
        "2xx with an error though success is true",
        200,
        ACCEPTED.replace(b"false", b"true"),
        permanent,
        "unspecified",
    ),
    ("4xx with an error, no code", 400, refusal(), permanent, "unspecified"),
    ("4xx with an error, unknown code", 400, refusal("E7"), permanent, "E7"),
    ("4xx with an error, unknown code", 404, refusal("E7"), permanent, "E7"),
    ("2xx that is not JSON", 200, HTML, ambiguous, "invalid_response"),
    ("2xx that is empty", 200, b"", ambiguous, "invalid_response"),
    ("2xx that is empty", 204, b"", ambiguous, "invalid_response"),
    ("2xx that is no object", 200, b"[true]", ambiguous, "invalid_response"),
    ("2xx that lacks the fields", 200, b"{}", ambiguous, "invalid_response"),
    ("2xx that lacks has_error", 200, b'{"data":{"success":true}}', ambiguous, "invalid_response"),
    (
        "2xx with fields of other types",
        200,
        b'{"has_error":"false","data":{"success":true}}',
        ambiguous,
        "invalid_response",
    ),
    ("2xx larger than the cap", 200, None, ambiguous, "invalid_response"),
    *(
        ("3xx", status, b"", permanent, "redirected")
        for status in (300, 301, 302, 303, 307, 308, 399)
    ),
    ("3xx that says accepted", 302, ACCEPTED, permanent, "redirected"),
    *(
        ("4xx without a known code", status, body, permanent, f"http_{status}")
        for status in (400, 402, 404, 405, 410, 413, 415, 422, 418, 499)
        for body in (HTML, b"", None, b"{}")
    ),
    *(
        ("401, 403", status, body, auth, f"http_{status}")
        for status in (401, 403)
        for body in (HTML, b"", None, refusal())
    ),
    *(
        ("408, 500, 502, 503, 504, other 5xx", status, body, transient, f"http_{status}")
        for status in (408, 500, 502, 503, 504, 501, 505, 520, 599)
        for body in (HTML, b"", None, ACCEPTED, refusal())
    ),
    *(("429", 429, body, throttled, "http_429") for body in (HTML, b"", None, refusal())),
    # Not in the tables: no valid final status of HTTP, so the outcome is unknown.
    ("no status of HTTP", 199, b"", ambiguous, "invalid_response"),
    ("no status of HTTP", 600, ACCEPTED, ambiguous, "invalid_response"),
]


@pytest.mark.parametrize(
    ("signal", "status", "body", "outcome_class", "error_code"),
    SIGNALS,
    ids=[f"{row[1]}: {row[0]}, {i}" for i, row in enumerate(SIGNALS)],
)
def test_each_reply_has_the_class_of_its_row(
    signal: str,
    status: int,
    body: bytes | None,
    outcome_class: OutcomeClass,
    error_code: str | None,
) -> None:
    """A reply without a code gets a fallback code. Every error has a message."""
    found = classify(status, body)
    assert (found.outcome_class, found.error_code) == (outcome_class, error_code), signal
    assert found.http_status == status
    assert found.posted
    assert bool(found.error_message) == (outcome_class is not accepted)


@pytest.mark.parametrize(
    ("kind", "outcome_class"),
    [
        ("connection_failed", transient),
        ("connection_lost", ambiguous),
        ("timeout", ambiguous),
        ("internal_error", ambiguous),
    ],
)
def test_each_failure_has_the_class_of_its_row(kind: str, outcome_class: OutcomeClass) -> None:
    """A retry is safe only if the request certainly did not go out."""
    found = classify_failure(kind, "ConnectionRefusedError")
    assert (found.outcome_class, found.error_code) == (outcome_class, kind)
    assert found.http_status is None
    assert found.posted
    assert not found.final
    assert "ConnectionRefusedError" in (found.error_message or "")
    assert classify_failure(kind).error_message


def test_a_missing_token_is_auth_without_a_post() -> None:
    """The job fails and the lane pauses, without an attempt."""
    found = token_missing("500725830264749")
    assert (found.outcome_class, found.error_code, found.posted) == (auth, "token_missing", False)
    assert "500725830264749" in (found.error_message or "")


def test_other_jobs_of_a_page_without_a_token_are_released() -> None:
    """One job reports the missing token. The others spend no attempt."""
    found = page_paused(token_missing("500"))
    assert (found.outcome_class, found.error_code, found.posted) == (
        throttled,
        "token_missing",
        False,
    )


def test_an_invalid_stored_job_is_permanent_without_a_post() -> None:
    """The error names the invalid field."""
    found = invalid_job("page_id: Must not be blank.")
    assert (found.outcome_class, found.error_code, found.posted) == (
        permanent,
        "invalid_job",
        False,
    )
    assert found.error_message == "page_id: Must not be blank."


#: The table of codes, with one entry for each code.
CODES = {
    **dict.fromkeys(["-1", "1", "2", "508", "508/2534122", "1200", "1200/2018024"], transient),
    **dict.fromkeys(["9", "9/2018352"], transient),
    **dict.fromkeys(["17", "32", "613", "613/2018338"], throttled),
    **dict.fromkeys([str(code) for code in range(80001, 80015)], throttled),
    **dict.fromkeys(["4", "341"], app_throttled),
    **dict.fromkeys(["368", "2022", "10/1893063"], restricted),
    **dict.fromkeys(["102", "190"], auth),
    **dict.fromkeys(["3", "10", "10/1", "10/2999999", "1/99", "2/2018344"], permanent),
    **dict.fromkeys([str(code) for code in range(200, 300)], permanent),
    **dict.fromkeys(["200/2534041", "100/2534029"], permanent),
    "1/1357046": ambiguous,
    **dict.fromkeys(["10/2018278", "10/2018065", "2534022", "4/2018354"], permanent),
    **dict.fromkeys(["10/2018108", "200/1545041", "551", "551/1545041"], permanent),
    **dict.fromkeys(["100", "100/2018001", "100/2018109", "506", "10/2018300"], permanent),
}
#: The refusals that may be about the page: several in a row with the same code pause it.
ABOUT_PAGE = {
    *("3", "10", "10/1", "10/2999999", "1/99", "2/2018344", "200/2534041", "100/2534029"),
    *(str(code) for code in range(200, 300)),
}
#: The failures that are about one person, for any state of the job.
ABOUT_PERSON = {
    *("9", "9/2018352", "10/2018278", "10/2018065", "2534022", "4/2018354", "10/2018108"),
    *("200/1545041", "551", "551/1545041", "100/2018001", "506", "10/2018300"),
}


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429])
@pytest.mark.parametrize("code", CODES)
def test_each_code_has_the_class_of_its_row(code: str, status: int) -> None:
    """The class is the same for every 2xx or 4xx status, and the code is the job's error code."""
    found = classify(status, refusal(code))
    assert (found.outcome_class, found.error_code) == (CODES[code], code)
    assert found.final == (code == "1/1357046")
    assert found.about_page == (code in ABOUT_PAGE)
    assert found.about_person == (code in ABOUT_PERSON)


@pytest.mark.parametrize("code", CODES)
def test_a_code_in_the_message_is_used_if_there_is_no_error_code(code: str) -> None:
    """Graph puts the code at the beginning of the message."""
    message = f"(#{code}) This message is sent outside of the allowed window."
    found = classify(400, refusal(None, message))
    assert found == classify(400, refusal(code, message))
    assert classify(400, refusal("E7", message)).error_code == "E7", "error_code takes precedence"


@pytest.mark.parametrize("code", ["80000", "80015", "199", "300", "-2", "0", "E7", "999999"])
def test_a_code_outside_the_ranges_is_unknown_and_may_be_about_the_page(code: str) -> None:
    """Its cause is unknown, so a page pauses after several refusals with it."""
    found = classify(400, refusal(code))
    assert (found.outcome_class, found.error_code) == (permanent, code)
    assert (found.about_page, found.about_person) == (True, False)


@pytest.mark.parametrize(
    ("status", "body", "about_page"),
    [
        (200, refusal(), True),
        (400, refusal(), True),
        (403, refusal("230"), True),
        (403, refusal("551"), False),
        (400, HTML, False),
        (404, HTML, False),
        (302, b"", False),
        (200, b'{"has_error":false,"data":{"success":false}}', False),
        (403, HTML, False),
        (500, refusal("10"), False),
    ],
)
def test_a_status_alone_is_not_about_the_page(status: int, body: bytes, about_page: bool) -> None:
    """A permanent refusal counts. A 403 pauses the page itself, so it does not need to count."""
    assert classify(status, body).about_page == about_page


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("code", ["-1", "1", "1/33"])
def test_with_at_most_once_an_unknown_error_of_messenger_is_ambiguous(
    code: str, status: int
) -> None:
    """With Graph's unknown error, the message may have been processed."""
    assert classify(status, refusal(code)).outcome_class is transient
    assert classify(status, refusal(code), at_most_once=True).outcome_class is ambiguous
    codes = {"1": transient, "-1": transient}
    listed = classify(status, refusal(code), codes, at_most_once=True)
    assert listed.outcome_class is ambiguous, "an operator's list does not make it safe"


@pytest.mark.parametrize("code", ["2", "508", "1200", "9"])
def test_with_at_most_once_a_definite_refusal_is_retried(code: str) -> None:
    """Messenger did not accept the message."""
    assert classify(400, refusal(code), at_most_once=True).outcome_class is transient


@pytest.mark.parametrize("code", [code for code in CODES if code.isdigit()])
def test_a_code_that_is_a_number_is_the_same_code(code: str) -> None:
    """The documented type is a string. Messenger uses numbers."""
    assert classify(400, refusal(int(code))) == classify(400, refusal(code))


@pytest.mark.parametrize(
    "code", [code for code in CODES if len(code.partition("/")[2]) > 5 and code != "10/2999999"]
)
def test_a_long_subcode_means_the_same_alone_or_with_another_code(code: str) -> None:
    """The API may pass on either part."""
    subcode = code.partition("/")[2]
    for form in (subcode, f"1/{subcode}", f"999/{subcode}"):
        found = classify(400, refusal(form))
        assert (found.outcome_class, found.final) == (CODES[code], code == "1/1357046")
        assert (found.about_page, found.about_person) == (code in ABOUT_PAGE, code in ABOUT_PERSON)


def test_a_short_subcode_means_nothing_by_itself() -> None:
    """1/99 is a permission error. 99 and 2/99 are not."""
    assert classify(503, refusal("99")).outcome_class is transient
    assert classify(400, refusal("2/99")).outcome_class is transient, "the class of its code, 2"
    assert classify(400, refusal("99")).error_code == "99"


@pytest.mark.parametrize("code", ["1/33", "2/1", "1200/5", "17/1", "190/460", "190/463", "100/33"])
def test_an_unknown_subcode_falls_back_to_its_code(code: str) -> None:
    """The code's class is the best available one."""
    whole = classify(400, refusal(code))
    alone = classify(400, refusal(code.partition("/")[0]))
    assert whole.outcome_class is alone.outcome_class
    assert whole.error_code == code


@pytest.mark.parametrize("status", [401, 403, 408, 429])
def test_with_an_unknown_code_the_status_determines_the_class(status: int) -> None:
    """A 401 with an unknown code is still a refused token."""
    found = classify(status, refusal("E7", "who are you?"))
    bare = classify(status, b"")
    assert found.outcome_class is bare.outcome_class
    assert (found.error_code, found.error_message) == ("E7", "who are you?")


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("code", ["4", "190", "551", "E7"])
def test_a_server_error_is_transient_with_any_code(status: int, code: str) -> None:
    """Codes only determine the class of 2xx and 4xx. The API's code is still kept."""
    found = classify(status, refusal(code))
    assert (found.outcome_class, found.error_code) == (transient, code)


@pytest.mark.parametrize("status", [200, 302, 400, 500, 503])
@pytest.mark.parametrize("code", ["1/1357046", "1357046", 1357046, "2/1357046"])
def test_messages_sent_despite_the_error_are_never_sent_again(status: int, code: str | int) -> None:
    """The code means that the message was sent, for every status."""
    found = classify(status, refusal(code))
    assert (found.outcome_class, found.final) == (ambiguous, True)


@pytest.mark.parametrize("status", [500, 504])
def test_with_at_most_once_an_unclear_server_error_is_ambiguous(status: int) -> None:
    """The error came during processing, or from a gateway with a timeout."""
    assert classify(status, HTML).outcome_class is transient
    found = classify(status, HTML, at_most_once=True)
    assert (found.outcome_class, found.error_code) == (ambiguous, f"http_{status}")


@pytest.mark.parametrize("status", [408, 502, 503, 501, 520])
def test_with_at_most_once_other_server_errors_are_transient(status: int) -> None:
    """The message did not reach the server behind the gateway."""
    assert classify(status, HTML, at_most_once=True).outcome_class is transient


def test_operators_can_extend_the_list_of_codes() -> None:
    """Their list takes precedence over the built-in one, for full codes and for families."""
    codes = {"551": transient, "10/7654321": throttled, "E7": auth, "E8": permanent}
    codes |= {"E9": restricted, "7": app_throttled}
    assert classify(400, refusal("551"), codes).outcome_class is transient
    assert classify(400, refusal("551/1545041"), codes).outcome_class is transient
    assert classify(400, refusal("10/7654321"), codes).outcome_class is throttled
    assert classify(400, refusal("7654321"), codes).outcome_class is throttled
    assert classify(400, refusal("E7"), codes).outcome_class is auth
    assert classify(400, refusal("E9"), codes).outcome_class is restricted
    assert classify(400, refusal("7/12"), codes).outcome_class is app_throttled
    assert not classify(400, refusal("E8"), codes).about_page, "the code is now known"
    assert classify(400, refusal("10"), codes).outcome_class is permanent


@pytest.mark.parametrize(
    ("status", "body", "asked"),
    [
        (429, HTML, 7.5),
        (503, HTML, 7.5),
        (200, HTML, 7.5),
        (400, refusal("4"), 7.5),
        (400, refusal("17"), 7.5),
        (400, refusal("368"), 7.5),
        (400, refusal("551"), None),
        (401, HTML, None),
        (302, b"", None),
        (200, ACCEPTED, None),
    ],
)
def test_retry_after_is_used_for_classes_with_a_retry(
    status: int, body: bytes, asked: float | None
) -> None:
    """It applies to every class that is retried (design promise 5)."""
    assert classify(status, body, retry_after="7.5").retry_after_seconds == asked


def test_retry_after_as_a_date_is_relative_to_the_reply() -> None:
    """Both dates come from the server's clock."""
    found = classify(
        503,
        HTML,
        retry_after="Sat, 31 Jan 2026 12:00:30 GMT",
        date="Sat, 31 Jan 2026 12:00:00 GMT",
    )
    assert found.retry_after_seconds == 30.0


@pytest.mark.parametrize(("status", "body"), [(200, ACCEPTED), (400, refusal("551")), (503, HTML)])
def test_every_reply_may_have_a_call_limit(status: int, body: bytes) -> None:
    """An accepting reply may have it too: the bucket must not overflow."""
    found = classify(status, body, call_limit="32/80")
    assert found.call_limit == CallLimit(used=32, limit=80)
    assert classify(status, body).call_limit is None


def test_an_outcome_contains_no_echoed_token() -> None:
    """It is neither in the code nor in the message (design promise 9)."""
    found = classify(401, refusal(f"bad:{SECRET}", f"token {SECRET} is not valid"))
    assert found.error_code == "bad:[token]"
    assert found.error_message == "token [token] is not valid"


statuses = st.integers(100, 999)
bodies = (
    st.none()
    | st.binary(max_size=200)
    | st.just(ACCEPTED)
    | st.fixed_dictionaries(
        {"has_error": st.booleans()},
        optional={
            "data": st.none() | st.fixed_dictionaries({}, optional={"success": st.booleans()}),
            "error_code": st.none() | st.sampled_from(sorted(CODES)) | st.text() | st.integers(),
            "error_message": st.none() | st.text(st.characters()),
        },
    ).map(lambda reply: json.dumps(reply).encode())
)


@given(statuses, bodies, st.booleans(), st.none() | st.text())
def test_every_reply_has_exactly_one_class(
    status: int,
    body: bytes | None,
    at_most_once: bool,
    retry_after: str | None,
) -> None:
    """Only a documented success is accepted. Every other reply has a safe error."""
    found = classify(status, body, at_most_once=at_most_once, retry_after=retry_after)
    api = parse_reply(body) if body is not None else None
    is_success = (
        200 <= status < 300 and api is not None and not api.has_error and api.success is True
    )
    assert (found.outcome_class is accepted) == is_success
    assert found.outcome_class in OutcomeClass
    if is_success:
        assert (found.error_code, found.error_message) == (None, None)
    else:
        assert found.error_code and found.error_code.isprintable() and len(found.error_code) <= 64
        assert found.error_message and found.error_message.isprintable()
        assert len(found.error_message) <= 500
    assert not (found.about_page and found.about_person)
    asked = found.retry_after_seconds
    assert asked is None or (asked >= 0 and found.outcome_class not in (accepted, permanent, auth))
