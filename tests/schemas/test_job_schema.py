"""The body of a POST: the documented body is accepted, and every other body is refused."""

from __future__ import annotations

import json
from copy import deepcopy
from types import MappingProxyType
from typing import Any

import pytest
from harasocial_dispatch.schemas import MESSAGING_TYPE, InvalidJob, SendJob, parse_send_job
from hypothesis import example, given
from hypothesis import strategies as st
from marshmallow import Schema

#: The example of the API page, word for word.
DOCUMENTED = {
    "messaging_type": "harasocial_facebook_payload_id",
    "recipient": {"id": "2560816460648749"},
    "message": {
        "payload_id": "__hrf_f_63072efd8d1cc15d16c3848e_s_4d12c525111725943cdbf556bd57687d"
    },
    "page_id": "500725830264749",
    "metadata": "Custom string that is delivered as a message echo",
}
FIELDS = ("messaging_type", "recipient.id", "message.payload_id", "page_id", "metadata")
ESCAPE = "\x1b[2J\x1b]0;owned\x07"
LONE_SURROGATE = "\ud83d"
MISSING = object()


def body_with(path: str, value: Any) -> dict[str, Any]:
    """Return the documented body with one field changed, or left out if `value` is MISSING."""
    body: dict[str, Any] = deepcopy(DOCUMENTED)
    *parents, name = path.split(".")
    place = body
    for parent in parents:
        place = place[parent]
    if value is MISSING:
        del place[name]
    else:
        place[name] = value
    return body


def errors_of(body: Any) -> dict[str, list[str]]:
    with pytest.raises(InvalidJob) as caught:
        parse_send_job(body)
    return caught.value.errors


def test_the_documented_example_is_posted_unchanged() -> None:
    """The fields keep the order of the API page."""
    job = parse_send_job(DOCUMENTED)
    assert job == SendJob(
        page_id="500725830264749",
        recipient_id="2560816460648749",
        payload_id="__hrf_f_63072efd8d1cc15d16c3848e_s_4d12c525111725943cdbf556bd57687d",
        metadata="Custom string that is delivered as a message echo",
    )
    assert json.dumps(job.body()) == json.dumps(DOCUMENTED)


def test_the_messaging_type_is_optional_and_always_sent() -> None:
    """There is only one valid value."""
    assert parse_send_job(body_with("messaging_type", MISSING)).body() == DOCUMENTED


def test_omitted_metadata_is_not_sent() -> None:
    """It is not sent as null either."""
    assert "metadata" not in parse_send_job(body_with("metadata", MISSING)).body()


def test_any_mapping_is_accepted() -> None:
    """Some web frameworks use their own mapping class."""
    assert parse_send_job(MappingProxyType(DOCUMENTED)).page_id == DOCUMENTED["page_id"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata", "x" * 500),
        ("metadata", "ơ" * 500),
        ("metadata", "😀" * 500),
        ("metadata", "two\nlines\tand \x00 NUL"),
        ("metadata", " leading and trailing blanks "),
        ("message.payload_id", "p" * 256),
        ("message.payload_id", "mã số 1"),
        ("page_id", "0"),
        ("page_id", "007"),
        ("recipient.id", "9" * 32),
    ],
)
def test_values_at_the_limits_are_kept_unchanged(path: str, value: str) -> None:
    """Valid values are sent unchanged."""
    body = body_with(path, value)
    assert parse_send_job(body).body() == body


NOT_DIGITS = ["Must be a string of digits, nothing else."]
NUMBER = ["Is a number. Quote it: ids are strings of digits."]
NO_STRING_OF_DIGITS = ["Must be a string of digits."]


@pytest.mark.parametrize("path", ["page_id", "recipient.id"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2560816460648749, NUMBER),
        (2560816460648749.0, NUMBER),
        (float("nan"), NUMBER),
        (True, NO_STRING_OF_DIGITS),
        (["1"], NO_STRING_OF_DIGITS),
        (b"123", NO_STRING_OF_DIGITS),
        ("", ["Must not be blank."]),
        (" \t\n", ["Must not be blank."]),
        ("12 34", NOT_DIGITS),
        (" 1234", NOT_DIGITS),
        ("1234\n", NOT_DIGITS),
        ("-1", NOT_DIGITS),
        ("1e5", NOT_DIGITS),
        ("0x1f", NOT_DIGITS),
        ("12\x0034", NOT_DIGITS),
        ("١٢٣", NOT_DIGITS),
        ("１２３", NOT_DIGITS),
        ("²", NOT_DIGITS),
        (LONE_SURROGATE, NOT_DIGITS),
        (ESCAPE, NOT_DIGITS),
        ("1" * 33, ["Must have at most 32 digits."]),
        ("1" * 1_000_000, ["Must have at most 32 digits."]),
        (None, ["Field may not be null."]),
        (MISSING, ["Missing data for required field."]),
    ],
)
def test_an_id_is_a_short_string_of_ascii_digits(
    path: str, value: Any, expected: list[str]
) -> None:
    """Each kind of mistake has its own error, under the field's path."""
    assert errors_of(body_with(path, value)) == {path: expected}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("message.payload_id", MISSING, "Missing data for required field."),
        ("message.payload_id", None, "Field may not be null."),
        ("message.payload_id", 5, "Must be a string."),
        ("message.payload_id", {"id": "x"}, "Must be a string."),
        ("message.payload_id", "", "Must not be blank."),
        ("message.payload_id", "\u2003 ", "Must not be blank."),
        ("message.payload_id", "p" * 257, "Must have at most 256 characters; has 257."),
        ("message.payload_id", "a\x00b", "Must not have control characters."),
        ("message.payload_id", ESCAPE, "Must not have control characters."),
        (
            "message.payload_id",
            f"a{LONE_SURROGATE}",
            "Must be valid Unicode: it has half of a surrogate pair.",
        ),
        ("metadata", None, "Field may not be null."),
        ("metadata", 1001, "Must be a string."),
        ("metadata", ["order"], "Must be a string."),
        ("metadata", " ", "Must not be blank."),
        ("metadata", "x" * 501, "Must have at most 500 characters; has 501."),
        ("metadata", "x" * 1_000_000, "Must have at most 500 characters; has 1000000."),
        (
            "metadata",
            f"{LONE_SURROGATE}\n",
            "Must be valid Unicode: it has half of a surrogate pair.",
        ),
        ("messaging_type", "RESPONSE", f"Must be '{MESSAGING_TYPE}', or left out."),
        ("messaging_type", None, "Field may not be null."),
        ("messaging_type", 5, f"Must be '{MESSAGING_TYPE}', or left out."),
        ("recipient", MISSING, "Missing data for required field."),
        ("recipient", "2560816460648749", "Must be an object."),
        ("recipient", [], "Must be an object."),
        ("message", None, "Field may not be null."),
        ("message", "__hrf_f_", "Must be an object."),
        ("tag", "CONFIRMED_EVENT_UPDATE", "Is not a field of the API."),
        ("recipient.phone_number", "1", "Is not a field of the API."),
        ("message.text", "hello", "Is not a field of the API."),
    ],
)
def test_an_invalid_field_is_named(path: str, value: Any, expected: str) -> None:
    """The error is under the field's path and explains the mistake (design promise 10)."""
    assert errors_of(body_with(path, value)) == {path: [expected]}


def test_all_invalid_fields_are_reported_together() -> None:
    """A caller can correct all errors at once."""
    found = errors_of({"recipient": {"id": 5, "name": "x"}, "page_id": "a", "metadata": "", "x": 1})
    assert set(found) == {"recipient.id", "recipient.name", "message", "page_id", "metadata", "x"}


@pytest.mark.parametrize("body", [None, [], "{}", b"{}", 5, [("page_id", "1")]])
def test_a_body_that_is_not_an_object_is_refused(body: Any) -> None:
    """The error is under the path `job`."""
    assert errors_of(body) == {
        "job": ["Must be an object (a dict): the body of the API's request."]
    }


@pytest.mark.parametrize("name", ["x" * 1_000_000, ESCAPE, LONE_SURROGATE, "", ".", "_schema", 5])
@pytest.mark.parametrize("where", ["", "recipient", "message"])
def test_a_hostile_field_name_is_shortened_and_sanitized(name: Any, where: str) -> None:
    """It has no effect in terminals and does not fill logs."""
    body: dict[str, Any] = deepcopy(DOCUMENTED)
    (body[where] if where else body)[name] = "value"
    (path,) = errors_of(body)
    assert 0 < len(path) <= 100
    assert path.isprintable()


def test_deep_nesting_is_an_error_of_its_field() -> None:
    """Only the first level is examined."""
    deep: Any = "x"
    for _ in range(50_000):
        deep = [deep]
    assert errors_of(body_with("metadata", deep)) == {"metadata": ["Must be a string."]}


#: JSON values, and other values that Python accepts: NaN, lone surrogates, keys of other types.
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters()) | st.sampled_from(FIELDS), inner, max_size=3)
    ),
    max_leaves=10,
)
digits = st.text("0123456789", min_size=1, max_size=32)
almost_a_body = st.fixed_dictionaries(
    {
        "recipient": st.fixed_dictionaries({"id": digits | anything}, optional={"more": anything})
        | anything,
        "message": st.fixed_dictionaries(
            {"payload_id": st.text(max_size=300) | anything}, optional={"more": anything}
        )
        | anything,
        "page_id": digits | anything,
    },
    optional={
        "messaging_type": st.just(MESSAGING_TYPE) | anything,
        "metadata": st.text(max_size=600) | anything,
        "more": anything,
    },
)


@given(almost_a_body | anything)
def test_any_body_is_a_job_or_an_error_with_paths(body: Any) -> None:
    """No other exception is raised, and the body of an accepted job gives the same job again."""
    try:
        job = parse_send_job(body)
    except InvalidJob as error:
        assert error.errors
        assert all(path and texts and all(texts) for path, texts in error.errors.items())
        assert len(str(error)) < 10_000
    else:
        assert parse_send_job(job.body()) == job
        assert parse_send_job(json.loads(json.dumps(job.body()))) == job
        json.dumps(job.body(), ensure_ascii=False).encode()


def parsed(body: Any) -> SendJob | dict[str, list[str]]:
    try:
        return parse_send_job(body)
    except InvalidJob as error:
        return error.errors


@given(almost_a_body)
@example(DOCUMENTED)
@example(DOCUMENTED | {"metadata": None})
@example(DOCUMENTED | {"messaging_type": None})
@example(DOCUMENTED | {"more": 1})
@example(DOCUMENTED | {"recipient": {"id": "1", "more": 1}})
def test_the_fast_path_agrees_with_the_schema(body: dict[str, Any]) -> None:
    """A dict that the fast path refuses is validated by the schema, like every other mapping."""
    assert parsed(body) == parsed(MappingProxyType(body))


@pytest.mark.parametrize("without", [None, "metadata", "messaging_type"])
def test_a_valid_dict_does_not_need_the_schema(
    without: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schema would take a sixth of a worker's CPU time, and most of `enqueue_many`'s."""
    monkeypatch.delattr(Schema, "load")
    body = {name: value for name, value in DOCUMENTED.items() if name != without}
    assert parse_send_job(body).page_id == DOCUMENTED["page_id"]
