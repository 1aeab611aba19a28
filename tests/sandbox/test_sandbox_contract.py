"""The sandbox accepts the documented request and refuses every other request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from harasocial_dispatch.sandbox.contract import InvalidBodyError, Job, parse_body
from hypothesis import given
from hypothesis import strategies as st
from support.exact_client import Client

#: The example of the API page, as curl sends it.
EXAMPLE = b"""{
"messaging_type": "harasocial_facebook_payload_id",
"recipient": {
"id": "2560816460648749"
},
"message": {
"payload_id": "__hrf_f_63072efd8d1cc15d16c3848e_s_4d12c525111725943cdbf556bd57687d"
},
"page_id": "500725830264749",
"metadata": "Custom string that is delivered as a message echo"
}"""


def test_the_documented_example_is_accepted(client: Client) -> None:
    """The example of the API page is accepted, and its four fields identify the job."""
    assert client.exchange(client.request(EXAMPLE, connection="close")).status == 200

    (job,) = client.sandbox.jobs()
    assert (job.page_id, job.recipient_id) == ("500725830264749", "2560816460648749")
    assert job.payload_id == "__hrf_f_63072efd8d1cc15d16c3848e_s_4d12c525111725943cdbf556bd57687d"
    assert job.metadata == "Custom string that is delivered as a message echo"
    assert (job.posts, job.accepted) == (1, 1)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"authorization": None}, 401),
        ({"authorization": "sandbox-token"}, 401),
        ({"authorization": "Basic sandbox-token"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": "Bearer another"}, 401),
        ({"content_type": None}, 415),
        ({"content_type": "application/json"}, 415),
        ({"content_type": "application/json-patch+json; charset=utf-8"}, 200),
        ({"accept": None}, 406),
        ({"accept": "*/*"}, 406),
        ({"accept": "application/json"}, 406),
        ({"accept": "application/json, text/plain;q=0.5"}, 200),
        ({"path": "/"}, 404),
        ({"path": "/social/messages"}, 404),
        ({"path": "/social/messages.json?page=1"}, 404),
        ({"method": "GET"}, 405),
        ({"method": "PUT"}, 405),
        ({"content_length": None}, 411),
        ({"content_length": None, "transfer_encoding": "chunked"}, 411),
        ({"content_length": "65537"}, 413),
        ({"content_length": "many"}, 400),
        ({"host": None}, 400),
    ],
    ids=str,
)
def test_only_the_documented_request_line_and_headers_are_accepted(
    client: Client, changes: dict[str, Any], status: int
) -> None:
    """Each deviation has its own status, and the message is not accepted."""
    received = client.exchange(client.request(client.body(), **{"connection": "close", **changes}))

    assert received.status == status
    assert received.ending == "closed"
    assert client.sandbox.totals().accepted == (1 if status == 200 else 0)


def test_the_header_allow_names_the_method(client: Client) -> None:
    """A 405 has the header Allow. A HEAD request gets no body."""
    received = client.exchange(client.request(b"", method="HEAD", connection="close"))

    assert received.status == 405
    assert "\r\nAllow: POST" in received.head
    assert received.body == b""


def without(name: str) -> dict[str, object]:
    return {name: None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (without("messaging_type"), "messaging_type is missing in the body"),
        (without("recipient"), "recipient is missing in the body"),
        (without("message"), "message is missing in the body"),
        (without("page_id"), "page_id is missing in the body"),
        ({"recipient": {}}, "id is missing in recipient"),
        ({"message": {}}, "payload_id is missing in message"),
        ({"messaging_type": "RESPONSE"}, "messaging_type must be 'harasocial_facebook_payload_id'"),
        ({"recipient": "2560816460648749"}, "recipient must be an object"),
        ({"recipient": {"id": 2560816460648749}}, "recipient.id must be a string"),
        ({"recipient": {"id": " "}}, "recipient.id must not be blank"),
        ({"recipient": {"id": "1", "name": "A"}}, "name in recipient is not a field of the API"),
        ({"message": ["x"]}, "message must be an object"),
        ({"message": {"payload_id": 1}}, "message.payload_id must be a string"),
        ({"message": {"payload_id": ""}}, "message.payload_id must not be blank"),
        ({"page_id": 500725830264749}, "page_id must be a string"),
        ({"metadata": 1001}, "metadata must be a string"),
        ({"metadata": "m" * 501}, "metadata must have at most 500 characters, not 501"),
        ({"tag": "HUMAN_AGENT"}, "tag in the body is not a field of the API"),
    ],
    ids=str,
)
def test_a_wrong_field_is_refused_and_named(
    client: Client, changes: dict[str, Any], message: str
) -> None:
    """The reply is a 400 in the documented format that names the field."""
    received = client.post(**changes)

    assert received.status == 400
    assert received.json == {
        "data": None,
        "has_error": True,
        "error_code": "invalid_request",
        "error_message": message,
    }
    totals = client.sandbox.totals()
    assert (totals.posts, totals.accepted, totals.jobs) == (1, 0, 0)


@pytest.mark.parametrize("metadata", [None, "", "m" * 500, "\N{SNOWMAN}" * 500, 'a "quoted"\nline'])
def test_metadata_is_optional_text_of_500_characters(client: Client, metadata: str | None) -> None:
    """The limit is in characters, not bytes."""
    assert client.post(metadata=metadata).status == 200
    assert client.sandbox.jobs()[0].metadata == metadata


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not JSON",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"\xef\xbb\xbf" + EXAMPLE,
        EXAMPLE[:-1],
        EXAMPLE + b"}",
        EXAMPLE.replace(b'"page_id"', b'"page_id": "1", "page_id"'),
        EXAMPLE.replace(b'"500725830264749"', b"NaN"),
        EXAMPLE.replace(b'"500725830264749"', b"[" * 30_000 + b"]" * 30_000),
        EXAMPLE.replace(b'"500725830264749"', b"9" * 20_000),
    ],
    ids=lambda body: repr(body[:12]),
)
def test_a_body_that_is_not_the_documented_object_is_refused(client: Client, body: bytes) -> None:
    """A body must be one JSON object without repeated names. Otherwise the reply is a 400."""
    received = client.exchange(client.request(body, connection="close"))

    assert received.status == 400
    assert received.json["has_error"] is True
    assert received.json["error_message"]


@given(
    st.binary(max_size=300)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["messaging_type", "recipient", "id", "message", "page_id"]), inner
            )
        ),
        max_leaves=8,
    ).map(lambda document: json.dumps(document).encode())
)
def test_any_body_is_a_job_or_refused(body: bytes) -> None:
    """The only possible exception of the parser is a refusal."""
    try:
        assert isinstance(parse_body(body), Job)
    except InvalidBodyError as refused:
        assert str(refused)


def test_each_page_has_its_own_token(client: Client) -> None:
    """A page's token is valid only for this page. `*` is the token of all other pages."""
    client.sandbox.tokens = {"1": "one", "2": "two", "*": "rest"}

    def status(page_id: str, token: str) -> int:
        body = client.body(page_id=page_id)
        bearer = f"Bearer {token}"
        return client.exchange(
            client.request(body, authorization=bearer, connection="close")
        ).status

    rights = {
        (page, token): status(page, token) for page in "123" for token in ("one", "two", "rest")
    }
    assert {pair for pair, code in rights.items() if code == 200} == {
        ("1", "one"),
        ("2", "two"),
        ("3", "rest"),
    }
    assert {code for code in rights.values() if code != 200} == {401}
    # A refused POST is still a POST of its job.
    assert [(job.posts, job.accepted) for job in client.sandbox.jobs()] == [(3, 1)] * 3


def test_page_without_a_token_is_refused(client: Client) -> None:
    """Without `*`, an unlisted page has no valid token."""
    client.sandbox.tokens = {"1": "one"}

    received = client.exchange(
        client.request(client.body(), authorization="Bearer one", connection="close")
    )
    assert received.status == 401
    assert b"one" not in received.data
