"""The token and all other secrets are in no output (design promise 9)."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import astuple
from typing import TYPE_CHECKING

from harasocial_dispatch.sandbox import Sandbox
from harasocial_dispatch.schemas import Settings
from harasocial_dispatch.worker.http import Endpoint
from harasocial_dispatch.worker.sender import Sender
from harasocial_dispatch.worker.tokens import Tokens

if TYPE_CHECKING:
    from .conftest import Secrets, Traces

RECIPIENT = "2560816460648749"

#: Length of a part of a secret that counts as a leak.
PART = 10

#: Each source of output, and a text that it must contain to prove that it was collected.
PLACES: dict[str, Callable[[Traces], str]] = {
    "Redis, before": lambda traces: "dispatch",
    "Redis, after": lambda traces: traces.records["late"].job_id,
    "Redis' traffic": lambda traces: traces.records["late"].job_id,
    "Celery's events": lambda traces: traces.records["late"].job_id,
    "remote control": lambda traces: "harasocial.dispatch",
    "process arguments": lambda traces: "harasocial_dispatch.worker",
    "worker's output": lambda traces: traces.records["crashed"].job_id,
    "Flower's output": lambda traces: "Settings: {",
    "Flower's pages": lambda traces: traces.records["echoed"].job_id,
    "Flower's data": lambda traces: traces.records["echoed"].job_id,
    "show": lambda traces: traces.records["echoed"].job_id,
    "show --json": lambda traces: traces.records["echoed"].job_id,
    "results": lambda traces: traces.records["echoed"].job_id,
    "results --json": lambda traces: traces.records["echoed"].job_id,
    "errors": lambda traces: "refused [token]",
    "errors --json": lambda traces: "refused [token]",
    "stats": lambda traces: "failed",
    "stats --json": lambda traces: "failed",
    "check": lambda traces: "settings",
    "check --json": lambda traces: "settings",
}


def parts(secrets: Secrets) -> set[str]:
    """Return all texts that would reveal a secret or a part of it."""
    forms = [form for secret in astuple(secrets) for form in (secret, in_base64(secret))]
    return {form[i : i + PART] for form in forms for i in range(len(form) - PART + 1)}


def in_base64(secret: str) -> str:
    """Return the part of the encoding that does not depend on the following text."""
    return base64.b64encode(secret.encode()[: len(secret) // 3 * 3]).decode()


def test_the_run_has_every_outcome(traces: Traces) -> None:
    """The run has each outcome class, and each reproducible error code of this package."""
    found = {name: (r.state.value, r.error_code) for name, r in traces.records.items()}
    assert found == dict(traces.ends)


def test_every_source_is_checked(traces: Traces) -> None:
    """Every collected source is checked, and every expected source was collected."""
    assert set(traces.texts) == set(PLACES)


def test_no_secret_is_in_any_trace(traces: Traces) -> None:
    """No token or password is in the output, neither completely, partially, nor encoded."""
    secret_parts = parts(traces.secrets)
    found: dict[str, int] = {}
    for place, marker in PLACES.items():
        text = traces.texts[place]
        assert marker(traces) in text, f"{place} was not looked at"
        found[place] = sum(part in text for part in secret_parts)

    assert found == dict.fromkeys(PLACES, 0)


def test_the_pages_that_could_show_a_secret_were_collected(traces: Traces) -> None:
    """The run includes the pages that could show the token, the broker's URL, or settings."""
    pages = traces.texts["Flower's pages"]
    assert f"200 task/{traces.records['echoed'].job_id}" in pages
    assert "broker_url" in pages
    assert "redis://:********@127.0.0.1" in pages
    assert "'template_path'" in traces.texts["Flower's output"]


def test_the_token_went_to_the_api_and_was_echoed(traces: Traces) -> None:
    """Both tokens were used, and the API's texts are stored without them."""
    sent = {dict(request.headers)["Authorization"] for request in traces.received}
    assert sent == {f"Bearer {traces.secrets.token}", f"Bearer {traces.secrets.page_token}"}
    for name in ("echoed", "echoed with 400", "own token"):
        record = traces.records[name]
        assert record.error_code == "refused [token]"
        assert record.error_message == "the request's header was Bearer [token]"


def test_no_recipient_is_in_a_log_or_shown_to_people(traces: Traces) -> None:
    """At most the last four digits of a recipient's id are shown."""
    for place in (
        *("worker's output", "Flower's output", "Flower's pages", "Celery's events"),
        *("show", "results", "errors", "check"),
    ):
        assert RECIPIENT not in traces.texts[place], place
    assert "************8749" in traces.texts["show"]


def test_no_repr_contains_the_token() -> None:
    """The repr of an object with the token does not contain it."""
    with Sandbox() as sandbox:
        settings = Settings(
            token="the-token", api_url=sandbox.url, proxy_url="http://user:the-password@proxy"
        )
        endpoint, tokens = Endpoint(settings), Tokens(settings)
        sender = Sender(endpoint=endpoint, tokens=tokens, settings=settings)
        for each in (settings, endpoint, tokens, sender):
            assert "the-token" not in repr(each)
            assert "the-password" not in repr(each)
