"""Hostile texts in any field or in the API's reply have no effect (design promise 11)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox.behaviors import HOSTILE_TEXT
from harasocial_dispatch.schemas import InvalidJob
from support.harness import body

if TYPE_CHECKING:
    from .conftest import Traces

MEGABYTE = "x" * 1024 * 1024
#: A part of `HOSTILE_TEXT` that string formatting would change.
FORMATS = "%s %n %(x)s {0} {x!r} ${x} $(id) `id`"

FOR_PEOPLE = ("show", "results", "errors", "stats", "check")
LOGS = ("worker's output", "Flower's output")


def test_nothing_acts_on_a_terminal_or_in_a_log(traces: Traces) -> None:
    """The output has no control characters, escape sequences or invisible characters."""
    acting = {
        place: [line for line in traces.texts[place].split("\n") if not line.isprintable()]
        for place in (*FOR_PEOPLE, *LOGS)
    }
    assert not any(acting.values()), acting


def test_json_is_valid_and_plain(traces: Traces) -> None:
    """Each line is one JSON document in printable ASCII, for any content."""
    for place in FOR_PEOPLE:
        lines = [line for line in traces.texts[f"{place} --json"].split("\n") if line]
        assert lines, place
        for line in lines:
            assert line.isascii(), (place, line)
            assert line.isprintable(), (place, line)
            json.loads(line)


def test_nothing_is_markup_on_a_web_page(traces: Traces) -> None:
    """Tags are escaped, on Flower's pages and on ours."""
    assert "&lt;script&gt;alert(" in traces.texts["Flower's pages"]
    assert "<script>alert(" not in traces.texts["Flower's pages"]


def test_format_specifiers_are_not_interpreted(traces: Traces) -> None:
    """Format specifiers are unchanged."""
    for place in ("show", "show --json", "Flower's data"):
        assert FORMATS in traces.texts[place], place


def test_a_long_reply_is_cut(traces: Traces) -> None:
    """Of 20,000 characters of error_message, one line of at most 500 is kept."""
    record = traces.records["hostile"]
    assert record.error_message is not None
    assert record.error_message.isprintable()
    assert 400 < len(record.error_message) <= 500
    assert record.error_code is not None
    assert len(record.error_code) <= 64


def test_valid_hostile_values_are_sent_unchanged(traces: Traces) -> None:
    """Metadata is stored, sent and printed in JSON unchanged."""
    metadata = HOSTILE_TEXT.replace("\ud800", "")
    record = traces.records["hostile job"]
    assert record.job["metadata"] == metadata
    received = [json.loads(request.body) for request in traces.received]
    assert record.job in received
    printed = [json.loads(line) for line in traces.texts["show --json"].split("\n") if line]
    assert record.as_json() in printed


def at(*path: str) -> Any:
    """Return a function that returns a body with one field replaced."""

    def replaced(text: str) -> dict[str, Any]:
        job = body(metadata="m")
        target: Any = job
        for name in path[:-1]:
            target = target[name]
        target[path[-1]] = text
        return job

    return replaced


FIELDS = {
    "page_id": at("page_id"),
    "recipient.id": at("recipient", "id"),
    "message.payload_id": at("message", "payload_id"),
    "metadata": at("metadata"),
    "messaging_type": at("messaging_type"),
}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("text", [MEGABYTE, HOSTILE_TEXT], ids=["a megabyte", "hostile"])
def test_a_refused_text_is_named_and_not_repeated(
    field: str, text: str, producer: Producer
) -> None:
    """The error names the field and does not contain its value."""
    with pytest.raises(InvalidJob) as refused:
        producer.enqueue(FIELDS[field](text))

    assert list(refused.value.errors) == [field]
    assert_brief(refused.value)


@pytest.mark.parametrize("option", ["idempotency_key", "send_at", "expires_at", "delivery"])
@pytest.mark.parametrize("text", [MEGABYTE, HOSTILE_TEXT], ids=["a megabyte", "hostile"])
def test_a_rejected_option_is_named_and_not_repeated(
    option: str, text: str, producer: Producer
) -> None:
    """The error names the option and does not contain its value."""
    options: Any = {option: text}
    with pytest.raises(InvalidJob) as refused:
        producer.enqueue(body(), **options)

    assert list(refused.value.errors) == [option]
    assert_brief(refused.value)


@pytest.mark.parametrize("text", [MEGABYTE, HOSTILE_TEXT], ids=["a megabyte", "hostile"])
def test_a_hostile_field_name_is_rejected_in_a_sanitized_line(
    text: str, producer: Producer
) -> None:
    """The name is shortened and sanitized."""
    with pytest.raises(InvalidJob) as refused:
        producer.enqueue({**body(), text: "x"})

    assert_brief(refused.value)


def assert_brief(error: InvalidJob) -> None:
    assert str(error).isprintable()
    assert len(str(error)) < 300
