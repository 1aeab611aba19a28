"""A stand-in for the API, and an embedded Valkey.

    with Sandbox() as sandbox, EmbeddedValkey() as valkey:
        ...  # HARASOCIAL_API_URL=sandbox.url  HARASOCIAL_REDIS_URL=valkey.url
             # HARASOCIAL_TOKEN=sandbox-token

`Sandbox` accepts requests exactly as the API page "Payload Id", version 1.0, describes them. It
refuses all other requests: 404 for another path, 405 for another method, 411 without
Content-Length, 413 above 64 KB, 401 for a wrong token, 415 and 406 for other media types, and 400
for a body with a field that is missing, unknown or of the wrong type. The payload id of a valid
message determines the reply.

To run it as a separate process: `python -m harasocial_dispatch.sandbox --port 8080`.

Payload ids
===========

A payload_id that does not start with `sandbox:` is accepted. The format of all others is

    sandbox:<behavior>[:<argument>...][#<anything>]

The part after `#` is ignored; it makes ids unique. Arguments are percent-decoded: write a colon in
an argument as `%3A`, a `#` as `%23`, and a `%` as `%25`. Unknown behaviors are refused with 400.

Accepted
    ok                                the accepted reply
    slow:<seconds>                    the accepted reply after this time
    slow_headers:<seconds>            its headers byte by byte, with this delay after each byte
    drip[:<seconds>]                  its body byte by byte, with this delay (0.05) after each
    gzip                              its body compressed
    http10                            as HTTP/1.0, without a length; the connection is closed
    call_limit:<text>                 with the header X-Haravan-Api-Call-Limit, such as `32/80`
    duplicate_headers                 with Content-Type, Content-Length and X-Request-Id twice

Refused
    code:<code>[:<status>]            has_error true with that error_code, such as `10/2018278`;
                                      the status is 200 unless given
    numeric_code:<code>[:<status>]    the same with error_code as a JSON number
    code_in_message:<code>[:<status>]    error_code null, error_message `(#<code>) sandbox error`
    echo_token[:<status>]             has_error true; error_code, error_message and a header quote
                                      the request's token
    echo_malformed[:<status>]         the same, and so does a line of the head that is not a header
    hostile[:<status>]                has_error true; error_code and error_message full of control
                                      characters, escape sequences, markup and format strings
    status:<status>                   that status with a plain text; one below 200, such as 103, is
                                      followed by the accepted reply
    throttle[:<retry_after>]          429; with the header Retry-After if given, whose value is the
                                      text as it is: `2.0`, nonsense, or a date such as
                                      `Wed, 21 Oct 2026 07%3A28%3A00 GMT`
    redirect[:<status>]               302 or that status, to the path /social/redirected, which
                                      counts its requests

Refused at first. page_id, recipient.id, payload_id and metadata together identify a job. Its first
<times> POSTs fail, the next one is accepted.
    throttle_first:<times>[:<retry_after>]     429 at first, as above
    flaky:<times>[:<status>]                   503 or that status at first
    flaky_drop:<times>                         as `drop` at first

No reply
    hang                              nothing, until the client disconnects
    drop                              the connection is closed after the request was read
    drop_before                       it is reset as if only the headers had been read; such a
                                      POST is not counted
    reset                             it is reset (RST) after the request was read

An invalid reply
    drop_mid                          half of the body, then the connection is closed
    wrong_length                      the whole body under a larger Content-Length, then closed
    garbage                           a body that is not JSON
    not_object                        a JSON list
    missing_fields                    `{}`
    no_success                        has_error false, data null
    unsuccessful                      has_error false, data.success false
    wrong_types                       has_error `"false"`, success `"true"`, and so on
    nan                               error_code NaN
    deep                              100,000 nested lists
    duplicate_keys                    has_error twice, true and false
    not_utf8                          error_message with bytes that are not UTF-8
    huge                              32 MB that end as an accepted reply
    endless                           a chunked body that never ends
    gzip_bomb                         1 MB that unpacks to 1 GB of zeros

While it runs
=============

`tokens`, `latency_seconds`, `fail_with()`, `reply_next()`, `down()`, `up()` and `reset()` change
it; `totals()`, `jobs()` and `requests()` return what was received. `fail_with` takes precedence
over every other error of a POST. An accepted reply counts when it begins to be sent, because the
API would have accepted the message by then, whether or not the client reads the whole reply.

The same over HTTP, for a sandbox in another process, in JSON:
    GET  /_sandbox/health      {"healthy": true}
    GET  /_sandbox/received    {"totals": {…}, "jobs": [{"page_id", "recipient_id", "payload_id",
                               "metadata", "posts", "accepted", "arrived_at": [seconds since 1970],
                               "arrived_at_monotonic": […]}, …]}
    GET  /_sandbox/requests    {"requests": [{"method", "path", "headers": [[name, value], …],
                               "body", "body_base64"}, …]}, with the token masked
    POST /_sandbox/reset       deletes what was received
    POST /_sandbox/switch      a JSON object with some of "fail_with": 503 or null,
                               "latency_seconds": 0.2, "tokens": {"*": "…", page_id: "…"}
"""

from __future__ import annotations

# Import through the parent package, so that a bare `import sandbox` fails here instead of loading
# every module twice.
from ..sandbox.behaviors import BEHAVIORS
from .control import DEFAULT_TOKEN
from .embedded_valkey import EmbeddedValkey, ValkeyStartError
from .journal import ReceivedJob, Totals
from .request import RawRequest
from .sandbox import Sandbox
from .standalone import exports, print_exports, serve_forever

__all__ = [
    "BEHAVIORS",
    "DEFAULT_TOKEN",
    "EmbeddedValkey",
    "RawRequest",
    "ReceivedJob",
    "Sandbox",
    "Totals",
    "ValkeyStartError",
    "exports",
    "print_exports",
    "serve_forever",
]
