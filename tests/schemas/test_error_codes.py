"""The table of error codes: every code has an explanation in every language."""

from __future__ import annotations

import re
import unicodedata

import pytest
from harasocial_dispatch.schemas import OutcomeClass
from harasocial_dispatch.schemas.error_codes import (
    API_CODES,
    FALLBACK_CODES,
    UNKNOWN,
    ErrorCode,
    ReplayKind,
    class_of,
    explain,
    explain_any,
    row_of,
)
from harasocial_dispatch.schemas.language import LANGUAGES, Language

ROWS = [*API_CODES, *FALLBACK_CODES]
#: Texts that are the same in both languages, such as names of settings and fields.
SHARED_WORD = re.compile(r"HARASOCIAL_[A-Z_]+|payload_id|page_id|social\.conv|metadata|Meta\b")
#: Characters that only Vietnamese uses.
VIETNAMESE_LETTER = re.compile(r"[ăâđêôơư]|[\u0300\u0301\u0303\u0309\u0323]")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("row", [*ROWS, UNKNOWN], ids=lambda row: row.code or "unknown")
def test_each_code_has_a_meaning_and_a_remedy(row: ErrorCode, language: Language) -> None:
    """Each text is one or two sentences on one line."""
    for text in row.texts[language]:
        assert text.endswith(".")
        assert text.isprintable()
        assert unicodedata.is_normalized("NFC", text)
        assert 10 < len(text) < 160
        in_parts = unicodedata.normalize("NFD", text.lower()) + text.lower()
        assert bool(VIETNAMESE_LETTER.search(in_parts)) == (language == "vi")


@pytest.mark.parametrize("row", [*ROWS, UNKNOWN], ids=lambda row: row.code or "unknown")
def test_both_languages_name_the_same_settings(row: ErrorCode) -> None:
    """A translation must name the same settings."""
    named = [set(SHARED_WORD.findall(" ".join(row.texts[language]))) for language in LANGUAGES]
    assert named[0] == named[1]


def test_each_code_has_one_row() -> None:
    """A code must not have two meanings."""
    codes = [row.code for row in ROWS]
    assert sorted(set(codes)) == sorted(codes)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.code)
def test_the_columns_of_a_row_agree(row: ErrorCode) -> None:
    """All columns agree on whether the message may have been sent, and may be sent again."""
    ambiguous = row.outcome_class is OutcomeClass.AMBIGUOUS
    assert row.may_have_been_sent or not ambiguous
    assert not row.may_have_been_sent or ambiguous or row.outcome_class is OutcomeClass.TRANSIENT
    says_never = row.texts["en"].remedy.startswith("Do not replay")
    assert says_never == (row.replay is ReplayKind.NEVER)
    assert says_never == row.texts["vi"].remedy.startswith("Không gửi lại")
    if row.outcome_class is OutcomeClass.AUTH:
        assert row.replay is ReplayKind.FIXABLE
    if row.outcome_class in (OutcomeClass.TRANSIENT, OutcomeClass.RESTRICTED):
        assert row.replay is ReplayKind.PASSING


@pytest.mark.parametrize(
    ("error_code", "like"),
    [
        ("2018278", "10/2018278"),
        ("99/2018278", "10/2018278"),
        ("1545041", "200/1545041"),
        ("190/460", "190"),
        ("10/4", "10"),
        ("200", "200-299"),
        ("283", "200-299"),
        ("299/5", "200-299"),
        ("80001", "80001-80014"),
        ("80014", "80001-80014"),
        ("http_418", "http_4xx"),
        ("http_599", "http_5xx"),
        ("http_503", "http_503"),
    ],
)
def test_an_unlisted_code_falls_back_to_a_part_of_it(error_code: str, like: str) -> None:
    """It falls back to its subcode if that is unique, or else to its code or range."""
    assert row_of(error_code).code == like
    assert explain(error_code) == row_of(error_code).texts["en"]


@pytest.mark.parametrize(
    "error_code",
    [
        *(None, "", "999999", "199", "300", "80000", "80015", "/", "10x", "2xx"),
        *("http_", "http_99", "http_1000", "http_abc", "http_²00", "http_200", "http_302"),
    ],
)
def test_an_unknown_code_has_no_explanation(error_code: str | None) -> None:
    """Only the API's message is available then."""
    assert explain(error_code) is None
    assert class_of(error_code) is None
    for language in LANGUAGES:
        assert explain_any(error_code, language) == UNKNOWN.texts[language]
    assert "the API's own" in UNKNOWN.texts["en"].meaning


@pytest.mark.parametrize("row", FALLBACK_CODES, ids=lambda row: row.code)
def test_the_api_cannot_use_fallback_codes(row: ErrorCode) -> None:
    """`http_503` as the API's error code is an unknown code, not a transient error."""
    assert class_of(row.code) is None
