"""The language of explanations: the browser's preference, or the user's choice."""

from __future__ import annotations

import pytest
import requests
from harasocial_dispatch.flower.language import preferred_language
from harasocial_dispatch.schemas.language import LANGUAGES
from hypothesis import given
from hypothesis import strategies as st
from support.flower_harness import LOGIN, FlowerHarness, new_page_id, text_of

ENGLISH = "The messaging window is closed"
VIETNAMESE = "Đã hết khung giờ được nhắn tin"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", "en"),
        ("vi", "vi"),
        ("vi-VN,vi;q=0.9,en-US;q=0.8,en;q=0.7", "vi"),
        ("en-US,en;q=0.9,vi;q=0.8", "en"),
        ("en;q=0.5, vi;q=0.8", "vi"),
        ("VI-vn", "vi"),
        ("fr-FR,fr;q=0.9,vi;q=0.1", "vi"),
        ("fr", "en"),
        ("*", "en"),
        ("vi;q=0", "en"),
        ("vi;q=x", "en"),
        ("vi;q=2", "en"),
        ("vi;q=nan", "en"),
        ("vi;level=1", "en"),
        ("vietnamese", "en"),
        ("en,vi", "en"),
        ("vi,en", "vi"),
    ],
)
def test_the_browsers_preferred_language_is_used(header: str, expected: str) -> None:
    """Weights come first, then the order. English is the default."""
    assert preferred_language(header) == expected


@given(
    st.text() | st.lists(st.sampled_from(["vi", "en", ";q=", "0.5", ",", "-", " "])).map("".join)
)
def test_any_header_gives_a_language(header: str) -> None:
    """The header is untrusted, and any value gives a language."""
    assert preferred_language(header) in LANGUAGES


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "path", ["/failures/{job}", "/failures?page_id={page}", "/failures/export.csv?page_id={page}"]
)
def test_explanations_are_in_the_users_language(
    harness: FlowerHarness, path: str, language: str
) -> None:
    """A CSV export is translated too. Exports for programs stay English."""
    page_id = new_page_id()
    job_id = harness.fail(page_id=page_id, error_code="10/2018278")
    headers = {"Accept-Language": language}
    found = harness.flower.get(path.format(job=job_id, page=page_id), headers=headers)
    found.encoding = "utf-8"
    assert (ENGLISH in found.text, VIETNAMESE in found.text) == (language == "en", language == "vi")
    lines = harness.flower.get(f"/failures/export.jsonl?page_id={page_id}", headers=headers)
    assert VIETNAMESE not in lines.text


def test_a_choice_overrides_the_browsers_language_and_is_kept(harness: FlowerHarness) -> None:
    """The switch is on every page, and redirects back to the page."""
    job_id = harness.fail(page_id=new_page_id(), error_code="10/2018278")
    path = f"/failures/{job_id}?recipient=shown"
    with requests.Session() as session:
        session.auth = LOGIN
        session.headers["Accept-Language"] = "en"
        page = session.get(harness.flower.url + path, timeout=30)
        assert ENGLISH in text_of(page)
        assert f'name="next" value="{path}"' in page.text
        token = page.text.partition('name="_xsrf" value="')[2].partition('"')[0]
        form = {"_xsrf": token, "language": "vi", "next": path}
        page = session.post(f"{harness.flower.url}/failures/language", data=form, timeout=30)
        assert (page.status_code, page.url) == (200, harness.flower.url + path)
        assert VIETNAMESE in text_of(page)
        assert 'lang="vi" aria-pressed="true"' in page.text
        (cookie,) = (c for c in session.cookies if c.name == "harasocial_language")
        assert cookie.expires
        # An invalid cookie is ignored.
        cookies = {"harasocial_language": "<script>"}
        other = harness.flower.get(path, cookies=cookies, headers={"Accept-Language": "vi"})
        assert VIETNAMESE in other.text
        assert "<script>" not in other.text.partition("<main")[2].partition("</main>")[0]


@pytest.mark.parametrize(
    ("fields", "status", "location"),
    [
        ({"language": "vi", "next": "//evil.example/"}, 302, "/failures"),
        ({"language": "vi", "next": "https://evil.example/"}, 302, "/failures"),
        ({"language": "vi", "next": "/\\evil.example/"}, 302, "/failures"),
        ({"language": "vi", "next": "/failures?error_code=551"}, 302, "/failures?error_code=551"),
        ({"language": "vi"}, 302, "/failures"),
        ({"language": "fr", "next": "/failures"}, 400, None),
        ({}, 400, None),
    ],
)
def test_the_switch_rejects_other_hosts_and_unknown_languages(
    harness: FlowerHarness, fields: dict[str, str], status: int, location: str | None
) -> None:
    """A forged form cannot redirect the user to another host."""
    answer = harness.flower.post("/failures/language", fields, allow_redirects=False)
    assert (answer.status_code, answer.headers.get("Location")) == (status, location)
