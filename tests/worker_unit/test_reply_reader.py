"""The reply reader: any data, in pieces of any size, has exactly one end."""

from __future__ import annotations

import httptools
import pytest
from harasocial_dispatch.sandbox.contract import ACCEPTED_BODY
from harasocial_dispatch.worker.http import CallFailed, Reply
from harasocial_dispatch.worker.http.reply_reader import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    ReplyReader,
)
from hypothesis import given
from hypothesis import strategies as st
from support.endpoint_faults import CHUNKED, CHUNKED_BODY, CONTINUE, EARLY_HINTS, head
from support.scripted_server import reply

Ending = Reply | CallFailed

WHOLE = {
    "a length": reply(),
    "chunked": CHUNKED + CHUNKED_BODY + b"\r\n",
    "chunked, with trailers": CHUNKED + CHUNKED_BODY + b"A: b\r\n\r\n",
    "after interim replies": CONTINUE + EARLY_HINTS + reply(),
    "204": head("HTTP/1.1 204 No Content"),
    "503": reply(b"", "Retry-After: 2", status="503 Busy"),
}

#: The details of an invalid reply.
WORDS = {
    "the reply is not valid HTTP",
    "the reply is not HTTP/1",
    "the reply's head is too long",
    "the connection closed before the end of the reply",
}


def read(pieces: list[bytes]) -> tuple[Ending, bool]:
    """Return the end of a reply in these pieces, and whether its connection may be kept."""
    reader = ReplyReader()
    for number, piece in enumerate(pieces):
        ending = reader.feed(piece)
        if ending is not None:
            return ending, reader.may_be_kept and number == len(pieces) - 1
    return reader.end_of_stream(), reader.may_be_kept


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """Split `data` into pieces."""
    places = sorted({place % len(data) for place in at} - {0})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@given(st.sampled_from(sorted(WHOLE)), st.lists(st.integers(0, 10_000)))
def test_a_reply_has_the_same_end_with_any_split(name: str, at: list[int]) -> None:
    """TCP keeps the order of bytes, but not the size of pieces."""
    whole = WHOLE[name]
    ending, may_be_kept = read([whole])
    assert isinstance(ending, Reply)
    assert may_be_kept
    assert read(cut(whole, at)) == (ending, True)


@pytest.mark.parametrize("status", ["200 OK", "429 Too Many Requests"])
def test_the_relevant_headers_are_kept(status: str) -> None:
    """Names are case-insensitive. A repeated header is joined, as HTTP requires."""
    fields = ["retry-AFTER: 2.0", "Date: now", "x-haravan-api-call-limit: 32/80", "Other: 1"]
    (ending, _) = read([reply(ACCEPTED_BODY, *fields, status=status)])
    assert isinstance(ending, Reply)
    assert (ending.retry_after, ending.date, ending.call_limit) == ("2.0", "now", "32/80")
    (ending, _) = read([reply(ACCEPTED_BODY, fields[2], fields[2], status=status)])
    assert isinstance(ending, Reply)
    assert ending.call_limit == "32/80, 32/80"


@given(
    st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", CHUNKED, head("HTTP/1.1 200 OK"), CONTINUE]),
    st.lists(st.binary(max_size=200), max_size=20),
)
def test_any_bytes_have_exactly_one_end(start: bytes, pieces: list[bytes]) -> None:
    """It never raises, quotes no data, and keeps a connection only after a complete reply."""
    ending, may_be_kept = read([start, *pieces])
    assert isinstance(ending, Reply) or (
        ending.kind == "connection_lost" and ending.detail in WORDS
    )
    if may_be_kept:
        assert isinstance(ending, Reply)
        assert ending.body is not None


@given(st.sampled_from(sorted(WHOLE)), st.binary(min_size=1, max_size=50))
def test_data_after_a_reply_affects_neither_it_nor_the_next(name: str, rest: bytes) -> None:
    """The connection is not used again, unless the data is only blank lines."""
    ending, _ = read([WHOLE[name]])
    followed, may_be_kept = read([WHOLE[name] + rest])
    assert followed == ending
    assert not may_be_kept or not rest.strip(b"\r\n")


@pytest.mark.parametrize("step", [1000, 5000, 70_000])
def test_the_amount_of_data_is_limited(step: int) -> None:
    """Both limits apply to pieces of any size. Data just below the limits is accepted."""

    def ending_of(data: bytes) -> Ending:
        return read([data[i : i + step] for i in range(0, len(data), step)])[0]

    long_head = head("HTTP/1.1 200 OK", *["A: " + "a" * 95] * 280, "Content-Length: 0")
    assert MAX_HEAD_BYTES - 5000 < len(long_head) < MAX_HEAD_BYTES
    assert isinstance(ending_of(long_head), Reply)
    too_long = head("HTTP/1.1 200 OK", *["A: " + "a" * 95] * 400, "Content-Length: 0")
    assert isinstance(ending_of(too_long), CallFailed)
    interim = ending_of(EARLY_HINTS * 1000 + reply())
    assert isinstance(interim, CallFailed)
    extensions = ending_of(CHUNKED + b"1;%s\r\n \r\n" % (b"a" * 900) * 50)
    assert isinstance(extensions, CallFailed)

    largest = ending_of(reply(b" " * MAX_BODY_BYTES))
    assert isinstance(largest, Reply)
    assert largest.body == b" " * MAX_BODY_BYTES
    too_large = ending_of(reply(b" " * (MAX_BODY_BYTES + 1)))
    assert too_large == Reply(status=200, body=None)


def test_an_exception_of_a_signal_handler_is_not_a_parser_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The exception is raised, and the reply is not reported as invalid."""

    def interrupt(*_: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(ReplyReader, "on_body", interrupt)
    with pytest.raises(InterruptedError):
        read([reply(ACCEPTED_BODY)])
    assert issubclass(httptools.HttpParserCallbackError, httptools.HttpParserError)
