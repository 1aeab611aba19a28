"""The table of endpoint faults, with the expected outcome of a call for each."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from itertools import chain, repeat

from harasocial_dispatch.sandbox.contract import ACCEPTED_BODY
from harasocial_dispatch.sandbox.reply import HANG, Ending, Step
from harasocial_dispatch.schemas import Delivery, OutcomeClass, State

from .scripted_server import Script, reply, steps


class Place(Enum):
    """An endpoint whose address or protocol differs from the settings."""

    #: Nothing listens on the port.
    DOWN = "down"
    #: https, with an untrusted certificate.
    SELF_SIGNED = "self-signed"
    #: https in the settings, plain HTTP at the endpoint.
    PLAIN_INSTEAD_OF_TLS = "plain HTTP instead of TLS"
    #: http in the settings, TLS at the endpoint.
    TLS_INSTEAD_OF_PLAIN = "TLS instead of plain HTTP"
    #: https; the connection is accepted, without a reply.
    TLS_THAT_NEVER_ANSWERS = "TLS that never answers"
    #: https; the connection is accepted, and then reset.
    TLS_THAT_RESETS = "TLS that resets"
    #: https, through a proxy whose reply to CONNECT never ends.
    PROXY_THAT_DRIPS = "proxy that drips"
    #: https, through a proxy that refuses the call.
    PROXY_THAT_REFUSES = "proxy that refuses"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A row: the behavior of the endpoint, and the expected outcome of the call.

    Attributes:
        endpoint: a payload id for the sandbox, a script for a scripted server, or a place.
        state: the expected state of the job, if it is not the usual one of the outcome class.
        pause_seconds: the expected pause of the page's lane, if it is checked.
        reaches_deadline: whether the call ends only at its deadline.
    """

    name: str
    endpoint: str | Script | Place
    outcome_class: OutcomeClass
    error_code: str | None
    delivery: Delivery = Delivery.AT_LEAST_ONCE
    state: State | None = None
    pause_seconds: float | None = None
    reaches_deadline: bool = False

    @property
    def expected_state(self) -> State:
        """The expected state of the job."""
        return self.state or STATES[self.outcome_class]


STATES = {
    OutcomeClass.ACCEPTED: State.SENT,
    OutcomeClass.PERMANENT: State.FAILED,
    OutcomeClass.AUTH: State.FAILED,
    OutcomeClass.TRANSIENT: State.RETRYING,
    OutcomeClass.AMBIGUOUS: State.RETRYING,
    OutcomeClass.THROTTLED: State.QUEUED,
}


def accepted(name: str, endpoint: str | Script) -> Fault:
    return Fault(name=name, endpoint=endpoint, outcome_class=OutcomeClass.ACCEPTED, error_code=None)


def permanent(name: str, endpoint: str | Script, error_code: str) -> Fault:
    return Fault(
        name=name, endpoint=endpoint, outcome_class=OutcomeClass.PERMANENT, error_code=error_code
    )


def transient(name: str, endpoint: str | Script | Place, error_code: str) -> Fault:
    return Fault(
        name=name, endpoint=endpoint, outcome_class=OutcomeClass.TRANSIENT, error_code=error_code
    )


def ambiguous(name: str, endpoint: str | Script | Place, error_code: str) -> Fault:
    return Fault(
        name=name,
        endpoint=endpoint,
        outcome_class=OutcomeClass.AMBIGUOUS,
        error_code=error_code,
        reaches_deadline=error_code == "timeout",
    )


def until_deadline(fault: Fault) -> Fault:
    """Return the row for a fault that ends only at the call's deadline."""
    return replace(fault, reaches_deadline=True)


def at_most_once(fault: Fault) -> Fault:
    """Return the row of the fault for a job that must not be sent twice."""
    return replace(
        fault,
        name=f"{fault.name}, at_most_once",
        outcome_class=OutcomeClass.AMBIGUOUS,
        delivery=Delivery.AT_MOST_ONCE,
        state=State.FAILED,
    )


def throttled(
    name: str, endpoint: str | Script, pause_seconds: float, state: State | None = None
) -> Fault:
    return Fault(
        name=name,
        endpoint=endpoint,
        outcome_class=OutcomeClass.THROTTLED,
        error_code="http_429",
        pause_seconds=pause_seconds,
        state=state,
    )


def head(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def dripping(start: bytes, piece: bytes) -> Script:
    """Send `start`, then `piece` repeatedly, with a delay after each."""

    def script() -> Iterator[Step]:
        yield start
        while True:
            yield piece
            yield 0.02

    return script


def answering(body: str, status: str = "200 OK", *headers: str) -> Script:
    return steps(reply(body.encode(), *headers, status=status))


def answering_packed(encoding: str, body: bytes) -> Script:
    return steps(reply(body, f"Content-Encoding: {encoding}"))


def redirecting(status: str) -> Script:
    return steps(reply(b"", "Location: /social/messages.json", status=status))


OK = reply()
EARLY_HINTS = head("HTTP/1.1 103 Early Hints", "Link: </style.css>; rel=preload")
PROCESSING = head("HTTP/1.1 102 Processing")
SWITCHING = head("HTTP/1.1 101 Switching Protocols", "Upgrade: other", "Connection: upgrade")
CONTINUE = head("HTTP/1.1 100 Continue")
DATE = "Date: Sat, 31 Jan 2026 09:30:00 GMT"
IN_90_SECONDS = "Retry-After: Sat, 31 Jan 2026 09:31:30 GMT"
YESTERDAY = "Retry-After: Fri, 30 Jan 2026 09:30:00 GMT"
DEEP = "[" * 32_000
CHUNKED = head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked")
CHUNKED_BODY = b"%x;a=b\r\n%s\r\n0\r\n" % (len(ACCEPTED_BODY), ACCEPTED_BODY)
PACKED_BOMB = gzip.compress(gzip.compress(bytes(2**26), compresslevel=1))
PACKED_NOTHING = head("HTTP/1.1 200 OK", "Content-Encoding: deflate") + b"\x78\x9c"
PARTS = b'Content-Type: multipart/mixed; boundary="'
LONG_HEADERS = (b"A: " + b"a" * 65_000 + b"\r\n") * 90 + b"\r\n"

FAULTS = [
    # Not available, or another protocol: the request did not go out.
    transient("down", Place.DOWN, "connection_failed"),
    transient("self-signed certificate", Place.SELF_SIGNED, "connection_failed"),
    until_deadline(
        transient("plain HTTP on a TLS port", Place.PLAIN_INSTEAD_OF_TLS, "connection_failed")
    ),
    until_deadline(
        transient("TLS handshake unanswered", Place.TLS_THAT_NEVER_ANSWERS, "connection_failed")
    ),
    transient("TLS handshake reset", Place.TLS_THAT_RESETS, "connection_failed"),
    until_deadline(transient("CONNECT dripping", Place.PROXY_THAT_DRIPS, "connection_failed")),
    transient("CONNECT refused", Place.PROXY_THAT_REFUSES, "connection_failed"),
    ambiguous("TLS on a plain port", Place.TLS_INSTEAD_OF_PLAIN, "connection_lost"),
    # 5xx.
    *(transient(f"{s}", f"sandbox:status:{s}", f"http_{s}") for s in (500, 502, 503, 504, 599)),
    at_most_once(transient("500", "sandbox:status:500", "http_500")),
    at_most_once(transient("504", "sandbox:status:504", "http_504")),
    transient("503 without length", steps(head("HTTP/1.1 503 Busy"), Ending.CLOSE), "http_503"),
    # 429: the page waits for Retry-After, and the job spends no attempt.
    throttled("429 bare", "sandbox:throttle", 1.0),
    throttled("429 float", "sandbox:throttle:2.5", 2.5),
    throttled("429 integer", "sandbox:throttle:3", 3.0),
    throttled("429 date", answering("", "429 Too Many", DATE, IN_90_SECONDS), 90.0),
    throttled("429 date in the past", answering("", "429 Too Many", DATE, YESTERDAY), 1.0),
    throttled("429 nonsense", "sandbox:throttle:soon", 1.0),
    throttled("429 negative", "sandbox:throttle:-5", 1.0),
    throttled("429 nan", "sandbox:throttle:nan", 1.0),
    throttled("429 infinity", "sandbox:throttle:1e400", 1.0),
    throttled("429 twice", answering("", "429 Busy", "Retry-After: 2", "Retry-After: 9"), 1.0),
    throttled("429 a year", "sandbox:throttle:31536000", 3600.0, State.FAILED),
    # Slow replies end at the call's deadline.
    ambiguous("hang", "sandbox:hang", "timeout"),
    at_most_once(ambiguous("hang", "sandbox:hang", "timeout")),
    ambiguous("slow headers", "sandbox:slow_headers:0.1", "timeout"),
    ambiguous("dripping body", "sandbox:drip:0.1", "timeout"),
    ambiguous(
        "dripping body without length",
        dripping(head("HTTP/1.1 200 OK", "Connection: close"), b" "),
        "timeout",
    ),
    ambiguous("dripping HTTP/1.0", dripping(head("HTTP/1.0 200 OK"), b'{"data": "'), "timeout"),
    until_deadline(
        permanent(
            "dripping 400",
            dripping(head("HTTP/1.1 400 Bad", "Connection: close"), b" "),
            "http_400",
        )
    ),
    ambiguous("dripping header", dripping(b"HTTP/1.1 200 OK\r\nA: ", b"a"), "timeout"),
    # Large replies are read only up to the limit.
    ambiguous("endless body", "sandbox:endless", "invalid_response"),
    ambiguous("32 MB", "sandbox:huge", "invalid_response"),
    ambiguous("gzip bomb", "sandbox:gzip_bomb", "invalid_response"),
    ambiguous("gzip bomb in gzip", answering_packed("gzip, gzip", PACKED_BOMB), "invalid_response"),
    ambiguous(
        "endless deflate of nothing",
        lambda: chain([PACKED_NOTHING], repeat(b"\0\0\0\xff\xff" * 9999, 999)),
        "invalid_response",
    ),
    ambiguous(
        "endless header",
        lambda: chain([b"HTTP/1.1 200 OK\r\nA: "], repeat(b"a" * 65536, 1000)),
        "connection_lost",
    ),
    ambiguous(
        "endless headers",
        lambda: chain([b"HTTP/1.1 200 OK\r\n"], repeat(b"A: b\r\n" * 9999, 100)),
        "connection_lost",
    ),
    ambiguous("long headers", steps(b"HTTP/1.1 200 OK\r\n" + LONG_HEADERS + OK), "connection_lost"),
    ambiguous(
        "endless 103 with long headers",
        lambda: repeat(b"HTTP/1.1 103 Early Hints\r\n" + LONG_HEADERS, 100),
        "connection_lost",
    ),
    ambiguous(
        "headers within a header",
        steps(b"HTTP/1.1 200 OK\r\n" + b"Content-Type: message/rfc822\r\r" * 900 + OK[15:]),
        "connection_lost",
    ),
    accepted(
        "a head that takes long to parse",
        steps(b"HTTP/1.1 200 OK\r\n" + PARTS + b";" * 31_000 + b"\r\n" + OK[17:]),
    ),
    ambiguous(
        "a folded head that takes long to parse",
        steps(b"HTTP/1.1 200 OK\r\n" + PARTS + b";" * 31_000 + b"\r\n \r\n" + OK[17:]),
        "connection_lost",
    ),
    ambiguous(
        "chunk of size -1",
        lambda: chain([CHUNKED + b"-1\r\n"], repeat(b"a" * 65536, 1000)),
        "connection_lost",
    ),
    ambiguous("chunk of size -5", steps(CHUNKED + b"-5\r\n", OK), "connection_lost"),
    # Incomplete replies.
    ambiguous("wrong length", "sandbox:wrong_length", "connection_lost"),
    ambiguous("half a body", "sandbox:drop_mid", "connection_lost"),
    ambiguous("reset before reading", "sandbox:drop_before", "connection_lost"),
    ambiguous("reset while answering", steps(OK[:-20], 0.05, Ending.RESET), "connection_lost"),
    ambiguous("reset after reading", "sandbox:reset", "connection_lost"),
    ambiguous("closed after reading", "sandbox:drop", "connection_lost"),
    at_most_once(ambiguous("closed after reading", "sandbox:drop", "connection_lost")),
    permanent(
        "half of a 400",
        steps(reply(b"half", status="400 Bad")[:-2], Ending.CLOSE),
        "http_400",
    ),
    # Unusual HTTP.
    accepted("HTTP/1.0", "sandbox:http10"),
    accepted("gzip", "sandbox:gzip"),
    accepted("chunked", steps(CHUNKED + CHUNKED_BODY + b"\r\n")),
    until_deadline(
        accepted("chunked, then endless trailers", dripping(CHUNKED + CHUNKED_BODY, b"A: b\r\n"))
    ),
    ambiguous("duplicated headers", "sandbox:duplicate_headers", "connection_lost"),
    accepted("103 and the reply", "sandbox:status:103"),
    accepted("103, and the reply later", steps(EARLY_HINTS, 0.05, OK)),
    accepted("100, 102, 103, and the reply", steps(CONTINUE, PROCESSING, EARLY_HINTS, OK)),
    accepted("a header in Latin-1", steps(reply(ACCEPTED_BODY, "X: \xff"))),
    ambiguous(
        "a header that is none",
        steps(reply(ACCEPTED_BODY, "not a header", "X: y")),
        "connection_lost",
    ),
    ambiguous("102 alone", steps(PROCESSING, HANG), "timeout"),
    ambiguous("endless 100", dripping(CONTINUE, CONTINUE), "timeout"),
    ambiguous("101", steps(SWITCHING, HANG), "invalid_response"),
    ambiguous("status 999", steps(reply(status="999 What")), "invalid_response"),
    ambiguous("no HTTP", steps(b"SSH-2.0-OpenSSH_9.2\r\n", Ending.CLOSE), "connection_lost"),
    ambiguous("HTTP/2", steps(head("HTTP/2 200"), OK), "connection_lost"),
    ambiguous(
        "a length of 5,000 digits",
        steps(head("HTTP/1.1 200 OK", "Content-Length: " + "9" * 5000), Ending.CLOSE),
        "connection_lost",
    ),
    ambiguous(
        "two lengths",
        steps(head("HTTP/1.1 200 OK", "Content-Length: 9", "Content-Length: 99"), OK),
        "connection_lost",
    ),
    ambiguous(
        "no gzip",
        steps(reply(ACCEPTED_BODY, "Content-Encoding: gzip")),
        "invalid_response",
    ),
    ambiguous("204", "sandbox:status:204", "invalid_response"),
    # Bodies that are not a valid reply.
    ambiguous("empty", answering(""), "invalid_response"),
    ambiguous("no JSON", "sandbox:garbage", "invalid_response"),
    ambiguous("not UTF-8", "sandbox:not_utf8", "invalid_response"),
    ambiguous("NaN", "sandbox:nan", "invalid_response"),
    ambiguous("100,000 levels", "sandbox:deep", "invalid_response"),
    ambiguous(
        "32,000 levels",
        answering(f'{{"has_error":true,"error_code":{DEEP}{DEEP.replace("[", "]")}}}'),
        "invalid_response",
    ),
    ambiguous("32,000 open brackets", answering(DEEP), "invalid_response"),
    ambiguous("a number of 50,000 digits", answering("9" * 50_000), "invalid_response"),
    ambiguous("duplicated keys", "sandbox:duplicate_keys", "invalid_response"),
    ambiguous("wrong types", "sandbox:wrong_types", "invalid_response"),
    *(
        ambiguous(
            f"has_error {value}",
            answering(f'{{"data":{{"success":true}},"has_error":{value}}}'),
            "invalid_response",
        )
        for value in ('"false"', "0", "null", "[]")
    ),
    # Numbers in place of strings are converted to strings.
    permanent("error_code 100", "sandbox:numeric_code:100", "100"),
    transient("error_code 2", "sandbox:numeric_code:2:400", "2"),
    permanent(
        "numbers for all strings",
        answering('{"data":null,"has_error":true,"error_code":4.5e3,"error_message":17}'),
        "4500.0",
    ),
    # Redirects are never followed: the token would be sent to the new address.
    *(
        permanent(f"{status} to itself", redirecting(f"{status} Moved"), "redirected")
        for status in (301, 302, 303, 307, 308)
    ),
    permanent("302 elsewhere", "sandbox:redirect", "redirected"),
]
