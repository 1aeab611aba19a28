"""Behavior that is specific to the Flask example."""

from __future__ import annotations

from typing import Any

import pytest
from support.web_apps import WebApp


def test_field_errors_are_unprocessable(flask_app: WebApp) -> None:
    """The status is 422, with all invalid fields of body and header."""
    answer = flask_app.post(b'{"recipient": {"id": 5}, "colour": "red"}', idempotency_key=" ")

    assert answer.status == 422
    assert list(answer.json) == ["errors"]
    assert answer.json["errors"].keys() == {
        "recipient.id",
        "message",
        "page_id",
        "colour",
        "idempotency_key",
    }
    assert answer.json["errors"]["recipient.id"] == [
        "Is a number. Quote it: ids are strings of digits."
    ]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/messages", 400), ("GET", "/messages", 405), ("GET", "/elsewhere", 404)],
)
def test_flasks_own_errors_are_json_too(
    flask_app: Any, method: str, path: str, status: int
) -> None:
    """A JSON client never gets an HTML page."""
    answer = flask_app.request(method, path, b"{" if method == "POST" else b"", {})

    assert answer.status == status
    assert list(answer.json) == ["error"]


def test_an_invalid_setting_prevents_the_start(
    monkeypatch: pytest.MonkeyPatch, flask_app: WebApp
) -> None:
    """The app is not created, and the error names the variable."""
    import sys

    from harasocial_dispatch.producer import SettingsError

    monkeypatch.setenv("HARASOCIAL_REDIS_URL", "localhost")
    with pytest.raises(SettingsError, match="HARASOCIAL_REDIS_URL"):
        sys.modules["flask_app"].create_app()
