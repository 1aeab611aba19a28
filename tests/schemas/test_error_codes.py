"""Every error code that can come up is explained, in one line for each of the two questions."""

from __future__ import annotations

import pytest
from harasocial_dispatch.schemas.error_codes import KNOWN, UNKNOWN, explain

OWN = [
    *("connection_failed", "connection_lost", "timeout", "internal_error", "invalid_response"),
    *("not_accepted", "unspecified", "redirected", "token_missing", "invalid_job", "expired"),
    "unknown_outcome",
]
HTTP = [f"http_{status}" for status in (400, 401, 403, 404, 408, 410, 413, 415, 422, 429, 500, 503)]


@pytest.mark.parametrize("error_code", [*KNOWN, *OWN, *HTTP])
def test_a_known_code_says_what_it_means_and_what_to_do(error_code: str) -> None:
    """Both are one sentence or two, on one line."""
    explanation = explain(error_code)
    assert explanation is not None
    for text in explanation:
        assert text.endswith(".")
        assert "\n" not in text
        assert 10 < len(text) < 140


@pytest.mark.parametrize(
    ("error_code", "like"),
    [
        ("2018278", "10/2018278"),
        ("99/2018278", "10/2018278"),
        ("1545041", "200/1545041"),
        ("190/460", "190"),
        ("10/4", "10"),
        ("283", "200"),
    ],
)
def test_a_code_that_is_not_listed_is_explained_by_a_part_of_it(error_code: str, like: str) -> None:
    """By its subcode, if that means the same with every code; else by its code."""
    assert explain(error_code) == explain(like)


@pytest.mark.parametrize(
    "error_code",
    [
        None,
        "",
        "999999",
        "http_",
        "http_99",
        "http_1000",
        "http_abc",
        "http_²00",
        "2xx",
        "/",
        "10x",
    ],
)
def test_what_is_not_known_is_not_made_up(error_code: str | None) -> None:
    """Then the API's own message has to do."""
    assert explain(error_code) is None
    assert "the API's own" in UNKNOWN.meaning


def test_a_message_that_arrived_is_not_to_be_replayed() -> None:
    """The remedies must not make a second message of one that arrived, or cannot arrive."""
    for code in ("1/1357046", "10/2018278", "551", "invalid_job"):
        explanation = explain(code)
        assert explanation is not None
        assert explanation.remedy.startswith("Do not replay")
