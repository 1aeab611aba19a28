"""The content of the pages over HTTP: failures, causes, and escaped texts."""

from __future__ import annotations

import re
from html import unescape
from urllib.parse import quote

import pytest
import redis
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.schemas import State
from support.flower_harness import FlowerHarness, job_ids, new_page_id, text_of

HOSTILE = """<script>alert(1)</script>'"&amp;{{ 7*7 }}{% raw x %}"""


def test_hostile_strings_are_escaped(harness: FlowerHarness) -> None:
    """Texts of the API and of other clients are escaped on every page."""
    page_id = new_page_id()
    job_id = harness.fail(
        page_id=page_id, error_code=HOSTILE[:60], error_message=HOSTILE, metadata=HOSTILE
    )
    waiting = harness.fail(
        page_id=page_id, error_code="x", error_message=HOSTILE, state=State.RETRYING
    )
    for path in (
        f"/failures?page_id={page_id}",
        f"/failures/{job_id}",
        f"/failures/{waiting}",
        "/failures/waiting",
    ):
        page = harness.flower.get(path)
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert HOSTILE in unescape(page.text)
    for path in (f"/failures?text={HOSTILE}", f"/failures?error_code={HOSTILE}"):
        assert "<script>alert" not in harness.flower.get(path).text


@pytest.mark.parametrize(
    "query",
    [
        "state=%3Cscript%3E",
        "after=x",
        "after=-1-a",
        "cancelled=x",
        "cancelled=-1",
        "cancelled=%C2%B2",
        "cancelled=" + "9" * 5000,
    ],
)
def test_an_invalid_url_of_waiting_jobs_gets_a_message(harness: FlowerHarness, query: str) -> None:
    """An invalid URL gives an error message, as for failed jobs."""
    page = harness.flower.get(f"/failures/waiting?{query}")
    assert page.status_code == (400 if query == "after=x" else 200)
    assert "cancelled" not in text_of(page)


@pytest.mark.parametrize(
    "query",
    [
        "within=%3Cscript%3E",
        "since=%3Cscript%3E",
        "after=%3Cscript%3E",
        "after=1-%00",
        "after=-1-a",
        "error_code=%FF%FE",
        "page_id=" + "9" * 5000,
        "text=" + "x" * 5000,
        "by=%3Cscript%3E",
    ],
)
def test_an_invalid_url_gets_a_message(harness: FlowerHarness, query: str) -> None:
    """An invalid URL never causes an internal error."""
    page = harness.flower.get(f"/failures?{query}")
    assert page.status_code in (200, 400)
    assert "<script>a" not in page.text
    if page.status_code == 400:
        assert "Error" in text_of(page)


def test_the_list_is_filtered_by_each_of_its_fields(harness: FlowerHarness) -> None:
    """Code, page, text and time restrict the list, alone and together."""
    page_id, other_page = new_page_id(), new_page_id()
    first = harness.fail(page_id=page_id, error_code="190", metadata="order 77001")
    harness.let_a_millisecond_pass()
    second = harness.fail(page_id=page_id, error_code="551", metadata="order 77002")
    harness.let_a_millisecond_pass()
    third = harness.fail(page_id=other_page, error_code="190", metadata="order 77003")
    for query, expected in [
        (f"page_id={page_id}", [second, first]),
        (f"page_id={page_id}&error_code=190", [first]),
        (f"page_id={other_page}&within=1h", [third]),
        (f"page_id={page_id}&error_code=190&error_code=551", [second, first]),
        (f"page_id={page_id}&page_id={other_page}&error_code=190", [third, first]),
        (f"page_id={other_page}&until=2020-01-01T00:00Z", []),
        ("text=order+77002", [second]),
        (f"text=ORDER+7700&page_id={page_id}", [second, first]),
        (f"page_id={page_id}&since=2020-01-01T00:00Z&until=2090-01-01T00:00Z", [second, first]),
    ]:
        assert job_ids(harness.flower.get(f"/failures?{query}")) == expected, query


def test_a_complete_job_id_redirects_to_the_job(harness: FlowerHarness) -> None:
    """The id can be pasted from a log line."""
    job_id = harness.fail(page_id=new_page_id())
    found = harness.flower.get(f"/failures?text={job_id}", allow_redirects=False)
    assert (found.status_code, found.headers["Location"]) == (302, f"/failures/{job_id}")


def test_older_pages_follow_to_the_end(harness: FlowerHarness) -> None:
    """Each job is listed once, with fifty jobs per page."""
    page_id = new_page_id()
    failed = [harness.fail(page_id=page_id, metadata=f"order {n}") for n in range(120)]
    path: str | None = f"/failures?page_id={page_id}"
    found: list[str] = []
    while path:
        page = harness.flower.get(path)
        found += job_ids(page)
        older = re.search(r'rel="next" href="([^"]+)"', page.text)
        path = "/failures" + unescape(older.group(1)) if older else None
    # Jobs of the same millisecond are sorted by id.
    assert len(found) == len(set(found)) == 120
    assert set(found) == set(failed)


def test_invalid_times_hide_no_failures(harness: FlowerHarness) -> None:
    """More invalid times than one page can hold are handled, also with a text filter."""
    page_id = new_page_id()
    job_id = harness.fail(page_id=page_id, error_code="190", metadata="order 88001")
    odd = {f"odd {score} {n}": score for score in ("inf", "-inf", "1.5") for n in range(60)}
    index = f"{{{harness.settings.namespace}}}:failed_on:{page_id}"
    client = redis.Redis.from_url(harness.settings.redis_url)
    client.zadd(index, odd)

    for query in ("", "&text=order+88001", "&by=page_id"):
        path: str | None = f"/failures?page_id={page_id}{query}"
        found = []
        while path:
            page = harness.flower.get(path)
            assert page.status_code == 200, page.text
            found += job_ids(page)
            older = re.search(r'rel="next" href="([^"]+)"', page.text)
            path = "/failures" + unescape(older.group(1)) if older else None
        assert found == [job_id]
    client.zrem(index, *odd)


def test_the_page_counts_and_explains(harness: FlowerHarness) -> None:
    """The page has counts by cause and page, and the chart also as a table."""
    page_id = new_page_id()
    for _ in range(3):
        harness.fail(page_id=page_id, error_code="10/2018278")
    harness.fail(page_id=page_id, error_code="190")
    page = harness.flower.get(f"/failures?page_id={page_id}&within=1h")
    text = text_of(page)
    assert "4 failed failures on page" in text
    assert "10/2018278 3" in text
    assert "The messaging window is closed" in text
    assert f"Page {page_id} 4" in text
    counts = [int(n) for n in re.findall(r"<title>[^<]*: (\d+) failures</title>", page.text)]
    assert sum(counts) == 4
    assert 'aria-labelledby="chart-title' in page.text


def test_a_job_is_shown_completely(harness: FlowerHarness) -> None:
    """The page has all data of the job. The recipient's id is shown on request."""
    job_id = harness.fail(
        page_id=new_page_id(),
        error_code="190",
        error_message="token has expired",
        metadata="order 1001",
        recipient_id="2560816460648749",
    )
    page = harness.flower.get(f"/failures/{job_id}")
    text = text_of(page)
    for part in (
        *("failed", "190 token has expired", "Set a new token in HARASOCIAL_TOKEN"),
        *("attempt 1 HTTP 200 after 250 ms", "enqueued", '"metadata": "order 1001"'),
        *("Deadline", "at_least_once", "************8749"),
    ):
        assert part in text
    assert "2560816460648749" not in page.text
    shown = text_of(harness.flower.get(f"/failures/{job_id}?recipient=shown"))
    assert shown.count("2560816460648749") == 2


def test_an_unknown_code_has_the_apis_own_message(harness: FlowerHarness) -> None:
    """An unknown code has no explanation, but a general remedy."""
    job_id = harness.fail(page_id=new_page_id(), error_code="424242", error_message="Lỗi lạ")
    text = text_of(harness.flower.get(f"/failures/{job_id}"))
    assert "424242 Lỗi lạ" in text
    assert "the error message is the API's own" in text
    assert "replay when its cause is gone" in text


def test_a_missing_page_is_not_found(harness: FlowerHarness) -> None:
    """The error page has Flower's style and a link back."""
    for path in ("/failures/none", "/failures/" + "0" * 32, "/failures/replays/abc"):
        page = harness.flower.get(path)
        assert page.status_code == 404
        assert "Not found" in page.text
        assert 'href="/failures"' in page.text


def test_an_invalid_job_of_another_client_can_be_shown(
    harness: FlowerHarness, valkey: EmbeddedValkey
) -> None:
    """The id can be any text, and missing values are omitted."""
    strange = "x/../%3Cb%3E?#é"
    prefix = f"{{{harness.settings.namespace}}}:"
    client = redis.Redis.from_url(valkey.url)
    client.hset(f"{prefix}job:{strange}", mapping={"state": "failed", "error_code": "invalid_job"})
    client.zadd(f"{prefix}failed", {strange: 1})
    page = harness.flower.get("/failures/" + quote(strange, safe=""))
    assert page.status_code == 200
    assert "invalid_job" in page.text
    assert harness.flower.get("/failures?until=1999-01-01T00:00Z").status_code == 200
    client.zrem(f"{prefix}failed", strange)
    client.close()
