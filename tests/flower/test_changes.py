"""Changes by the pages, over HTTP: single and multiple jobs are replayed and canceled."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from html import unescape

import pytest
import requests
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.producer.bulk_replay import Replay
from harasocial_dispatch.schemas import State, parse_new_job
from harasocial_dispatch.schemas.language import LANGUAGES
from support.flower_harness import (
    FlowerHarness,
    StartFlower,
    fail_job,
    job_ids,
    new_page_id,
    text_of,
)
from support.harness import body, eventually


def fields_of(page: requests.Response, marker: str) -> list[tuple[str, str]]:
    """Return the hidden fields of the form that contains `marker`, without the token."""
    (form,) = (
        form for form in re.findall(r"<form.*?</form>", page.text, re.DOTALL) if marker in form
    )
    fields = re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', form)
    return [(name, unescape(value)) for name, value in fields if name != "_xsrf"]


def plan_of(harness: FlowerHarness, fields: list[tuple[str, str]]) -> str:
    """Request a replay, and return its path when the jobs are counted."""
    plan = harness.flower.post("/failures/replays", fields)
    assert plan.status_code == 200
    path = plan.url.removeprefix(harness.flower.url)
    eventually(lambda: "would be replayed" in harness.flower.get(path).text, what="the count")
    return path


def test_one_job_is_replayed(harness: FlowerHarness) -> None:
    """The button on its page replays it after a confirmation. A second click has no effect."""
    job_id = harness.fail(page_id=new_page_id())
    fields = fields_of(harness.flower.get(f"/failures/{job_id}"), "Replay…")
    path, second = plan_of(harness, fields), plan_of(harness, fields)
    assert "1 job would be replayed" in text_of(harness.flower.get(path))
    assert harness.state(job_id) is State.FAILED
    harness.flower.post(path, {"action": "start"})
    eventually(lambda: "Done in" in harness.flower.get(path).text, what="the replay")
    assert harness.state(job_id) is State.QUEUED
    assert f'href="/failures/{job_id}"' in harness.flower.get(path).text
    assert 'data-live="1500"' in harness.flower.get(f"/failures/{job_id}").text
    harness.flower.post(second, {"action": "start"})
    eventually(lambda: "1 job skipped" in harness.flower.get(second).text, what="the second one")
    assert harness.flower.post(f"/failures/{job_id}", {"action": "explode"}).status_code == 400


def test_failures_are_grouped_by_whether_a_replay_helps(harness: FlowerHarness) -> None:
    """Each group can be replayed separately, except jobs that should not be replayed."""
    page_id = new_page_id()
    codes = ("http_503", "timeout", "190", "551")
    ids = {code: harness.fail(page_id=page_id, error_code=code) for code in codes}
    page = harness.flower.get(f"/failures?page_id={page_id}")
    text = text_of(page)
    places = [
        text.index(name)
        for name in ("Worth another try 2", "Fix the cause, then replay 1", "Do not replay 1")
    ]
    assert places == sorted(places)
    assert page.text.count("Replay these…") == 2
    path = plan_of(harness, fields_of(page, 'value="passing"'))
    plan = text_of(harness.flower.get(path))
    assert "(worth another try)" in plan
    assert "2 jobs would be replayed" in plan
    harness.flower.post(path, {"action": "start", "rate": ""})
    eventually(lambda: "Done in" in harness.flower.get(path).text, what="the replay")
    replayed = {code for code, job_id in ids.items() if harness.state(job_id) is State.QUEUED}
    assert replayed == {"http_503", "timeout"}
    wrong = [("what", "filter"), ("kind", "sometimes")]
    assert harness.flower.post("/failures/replays", wrong).status_code == 400


@pytest.mark.parametrize("by", ["one job", "a selection", "a filter"])
def test_every_way_to_replay_has_the_same_confirmation(harness: FlowerHarness, by: str) -> None:
    """The page has the grouped causes and the same warnings as the command line."""
    page_id = new_page_id()
    codes = ["timeout"] if by == "one job" else ["timeout", "190", "551", "551"]
    ids = [harness.fail(page_id=page_id, error_code=code) for code in codes]
    if by == "one job":
        fields = fields_of(harness.flower.get(f"/failures/{ids[0]}"), "Replay…")
    elif by == "a selection":
        fields = [("what", "selection"), *(("job_id", job_id) for job_id in ids)]
    else:
        fields = [("what", "filter"), ("page_id", page_id)]
    expected = Replay(harness.ledger, job_ids=ids).plan()
    path = plan_of(harness, fields)
    for language in LANGUAGES:
        page = harness.flower.get(path, headers={"Accept-Language": language})
        text = text_of(page)
        wanted = [
            *expected.warnings(language),
            *(f"{group.name(language)} {group.count}" for group in expected.kinds),
            *(sentence for cause in expected.causes for sentence in cause.explain(language)),
        ]
        assert [sentence for sentence in wanted if sentence not in text] == []
        assert page.text.index(wanted[0]) < page.text.index('value="start"'), "before it asks"


def test_a_waiting_job_is_canceled(harness: FlowerHarness) -> None:
    """A waiting job is canceled alone or in a selection. A failed job is not."""
    single, *some = (
        harness.fail(page_id=new_page_id(), state=State.RETRYING, error_code="http_503")
        for _ in range(4)
    )
    assert harness.flower.post(f"/failures/{single}", {"action": "cancel"}).status_code == 200
    listed = job_ids(harness.flower.get("/failures/waiting"))
    assert set(some) <= set(listed)
    assert single not in listed
    page = harness.flower.post("/failures/waiting", [("job_id", job_id) for job_id in some[:2]])
    assert "2 jobs canceled" in text_of(page)
    states = [harness.state(job_id) for job_id in (single, *some)]
    assert states == [State.CANCELLED] * 3 + [State.RETRYING]
    failed = harness.fail(page_id=new_page_id())
    assert harness.flower.post(f"/failures/{failed}", {"action": "cancel"}).status_code == 409
    assert harness.flower.post("/failures/waiting", {}).status_code == 400


def test_a_scheduled_job_is_listed_and_canceled(harness: FlowerHarness) -> None:
    """The list has its time and payload."""
    new = parse_new_job(
        body("__hrf_f_later"), {"send_at": datetime.now(timezone.utc) + timedelta(hours=1)}
    )
    (job_id,) = harness.ledger.enqueue([new]).job_ids
    page = harness.flower.get("/failures/waiting?state=scheduled")
    assert job_id in job_ids(page)
    assert "__hrf_f_later" in page.text
    harness.flower.post("/failures/waiting", {"job_id": job_id, "state": "scheduled"})
    assert harness.state(job_id) is State.CANCELLED


def test_a_filter_that_starts_in_the_future_replays_nothing(harness: FlowerHarness) -> None:
    """It is a valid filter that matches no jobs."""
    page_id = new_page_id()
    failed = harness.fail(page_id=page_id)
    fields = {"what": "filter", "page_id": page_id, "since": "2099-01-01T00:00Z"}
    plan = harness.flower.post("/failures/replays", fields)
    assert plan.status_code == 200
    assert harness.state(failed) is State.FAILED


def test_several_codes_and_pages_apply_to_the_form_the_exports_and_a_replay(
    harness: FlowerHarness,
) -> None:
    """A repeated parameter matches any of its values."""
    page_id, other_page = new_page_id(), new_page_id()
    codes = ("190", "551", "368")
    failed = {
        (p, c): harness.fail(page_id=p, error_code=c) for p in (page_id, other_page) for c in codes
    }
    wanted = {failed[p, c] for p in (page_id, other_page) for c in ("190", "368")}
    query = f"page_id={page_id}&page_id={other_page}&error_code=190&error_code=368"
    page = harness.flower.get(f"/failures?{query}")
    assert set(job_ids(page)) == wanted
    # The form has a field for each value, and one empty field.
    for name, values in (
        ("error_code", ["190", "368", ""]),
        ("page_id", [page_id, other_page, ""]),
    ):
        assert (
            re.findall(rf'<input [^>]*name="{name}" list[^>]*value="([^"]*)"', page.text) == values
        )
    for kind in ("csv", "jsonl"):
        text = harness.flower.get(f"/failures/export.{kind}?{query}").text
        assert {job_id for job_id in failed.values() if job_id in text} == wanted
    # The button's form replays the same jobs.
    path = plan_of(harness, fields_of(page, "Replay all"))
    assert "4 jobs" in text_of(harness.flower.get(path))
    harness.flower.post(path, {"action": "start", "rate": ""})
    eventually(lambda: "Done in" in harness.flower.get(path).text, what="the replay")
    assert {i for i in failed.values() if harness.state(i) is State.QUEUED} == wanted


@pytest.mark.parametrize("by", ["selection", "filter"])
def test_many_jobs_are_replayed_after_a_count_and_a_confirmation(
    harness: FlowerHarness, by: str
) -> None:
    """After the confirmation, the counted jobs are sent, and their states are shown."""
    page_id = new_page_id()
    failed = [harness.fail(page_id=page_id, error_code="551") for _ in range(3)]
    left = harness.fail(page_id=page_id, error_code="190")
    # when a replay is requested
    fields = (
        [("job_id", job_id) for job_id in failed]
        if by == "selection"
        else {"what": "filter", "page_id": page_id, "error_code": "551"}
    )
    plan = harness.flower.post("/failures/replays", fields)
    path = plan.url.removeprefix(harness.flower.url)
    eventually(lambda: "would be replayed" in harness.flower.get(path).text, what="the count")
    plan = harness.flower.get(path)
    # then the page shows the count and the causes
    assert "3 jobs would be replayed. Nothing has been replayed yet." in text_of(plan)
    assert "Do not replay; stop sending to this person." in text_of(plan)
    assert {harness.state(job_id) for job_id in failed} == {State.FAILED}
    # and when it is confirmed, only these jobs are queued, and no later job
    later = harness.fail(page_id=page_id, error_code="551")
    assert harness.flower.post(path, {"action": "start", "rate": "100"}).status_code == 200
    eventually(lambda: "Done in" in harness.flower.get(path).text, what="the replay")
    assert "3 of 3" in text_of(harness.flower.get(path))
    assert {harness.state(job_id) for job_id in failed} == {State.QUEUED}
    assert (harness.state(left), harness.state(later)) == (State.FAILED, State.FAILED)
    assert "queued 3" in text_of(harness.flower.get(path))
    assert path in harness.flower.get("/failures/replays").text
    # and a second confirmation has no effect
    assert harness.flower.post(path, {"action": "start", "rate": ""}).status_code == 409


@pytest.mark.parametrize("rate", ["0", "-1", "x", "nan", "inf", "1e9"])
def test_an_invalid_rate_is_rejected(harness: FlowerHarness, rate: str) -> None:
    """Nothing is sent."""
    job_id = harness.fail(page_id=new_page_id())
    plan = harness.flower.post("/failures/replays", {"job_id": job_id})
    path = plan.url.removeprefix(harness.flower.url)
    assert harness.flower.post(path, {"action": "start", "rate": rate}).status_code == 400
    assert harness.state(job_id) is State.FAILED


def test_a_running_replay_is_stopped(harness: FlowerHarness) -> None:
    """Its page stops it. While it runs, the other pages show it."""
    page_id = new_page_id()
    failed = [harness.fail(page_id=page_id) for _ in range(4)]
    plan = harness.flower.post("/failures/replays", {"what": "filter", "page_id": page_id})
    path = plan.url.removeprefix(harness.flower.url)
    eventually(lambda: "4 jobs" in text_of(harness.flower.get(path)), what="the count")
    harness.flower.post(path, {"action": "start", "rate": "0.001"})
    eventually(lambda: "1 of 4" in text_of(harness.flower.get(path)), what="the first")
    assert "Being replayed" in harness.flower.get("/failures").text
    harness.flower.post(path, {"action": "stop"})
    eventually(lambda: "then stopped" in harness.flower.get(path).text, what="its end")
    assert sum(harness.state(job_id) is State.FAILED for job_id in failed) == 3


def test_an_empty_selection_is_an_error(harness: FlowerHarness) -> None:
    """Without JavaScript, the form can be sent without a selection."""
    page = harness.flower.post("/failures/replays", {"what": "selection"})
    assert (page.status_code, "No job was selected." in page.text) == (400, True)


def test_a_replay_is_kept_after_a_restart(start_flower: StartFlower, ledger: Ledger) -> None:
    """After a restart of Flower, the replay is listed and can be confirmed."""
    job_id = fail_job(ledger, page_id=new_page_id())
    flower = start_flower()
    path = flower.post("/failures/replays", {"job_id": job_id}).url.removeprefix(flower.url)
    eventually(lambda: "1 job would" in text_of(flower.get(path)), what="the count")
    flower.restart()
    assert path in flower.get("/failures/replays").text
    assert flower.post(path, {"action": "start", "rate": ""}).status_code == 200
    eventually(lambda: "Done in" in flower.get(path).text, what="the replay")


def test_queued_jobs_are_listed_with_the_reason_why_they_wait(harness: FlowerHarness) -> None:
    """Jobs of paused pages are included. The jobs of each page can be listed and canceled."""
    paused, served = new_page_id(), new_page_id()
    ids = {
        page_id: harness.ledger.enqueue(
            [parse_new_job(body("__hrf_f_q", page_id=page_id), {}) for _ in range(2)]
        ).job_ids
        for page_id in (paused, served)
    }
    harness.ledger.pause_page(paused, by="thu@shop", reason="wrong price")
    page = harness.flower.get("/failures/waiting?state=queued")
    text = text_of(page)
    assert f"Page {paused} paused by thu@shop: wrong price 2" in text
    assert f"Page {served} waiting for the page’s rate 2" in text
    assert set(job_ids(page)) >= {*ids[paused], *ids[served]}

    page = harness.flower.get(f"/failures/waiting?state=queued&page_id={paused}")
    assert set(job_ids(page)) == set(ids[paused])
    page = harness.flower.post("/failures/waiting", {"job_id": ids[paused][0], "state": "queued"})
    assert "1 job canceled" in text_of(page)
    assert [harness.state(job_id) for job_id in ids[paused]] == [State.CANCELLED, State.QUEUED]
    harness.ledger.resume_page(paused)
