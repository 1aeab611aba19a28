"""The pages over HTTP: who gets in, what they show, what they change, and what they refuse."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import datetime, timedelta, timezone
from html import unescape

import pytest
import redis
import requests
from flower_desk import LOGIN, Desk, StartFlower, claim_job, fail_job, new_page_id
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.schemas import Settings, State, parse_new_job
from prometheus_client.parser import text_string_to_metric_families
from stage import body, eventually

HOSTILE = """<script>alert(1)</script>'"&amp;{{ 7*7 }}{% raw x %}"""
PATHS = [
    *("/failures", "/failures/", "/failures/waiting", "/failures/replays"),
    *("/failures/export.csv", "/failures/export.jsonl", "/failures/none"),
]


def text_of(page: requests.Response) -> str:
    """Return what is to be read on a page."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page.text)))


def job_ids(page: requests.Response) -> list[str]:
    """Return the jobs of a list, in order."""
    return re.findall(r'name="job_id" value="([^"]+)"', page.text)


# Who gets in.


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "login", [None, ("operator", "wrong"), ("", ""), ("Operator", LOGIN[1]), (LOGIN[0], "")]
)
def test_nobody_gets_in_without_the_login(
    desk: Desk, path: str, login: tuple[str, str] | None
) -> None:
    """And nobody learns more than that."""
    answer = desk.flower.get(path, auth=login, allow_redirects=False)
    assert (answer.status_code, answer.text) == (401, "Access denied")
    assert "Basic" in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("path", ["/failures/replays", "/failures/waiting", "/failures/{job}"])
@pytest.mark.parametrize(
    "kind", ["no token", "wrong token", "token of another cookie", "another site"]
)
def test_a_forged_form_is_refused(desk: Desk, path: str, kind: str) -> None:
    """Though the browser adds the login by itself."""
    job_id = desk.fail(page_id=new_page_id())
    url = desk.flower.url + path.format(job=job_id)
    fields = {"action": "replay", "job_id": job_id, "what": "filter"}
    headers, cookies = {}, {}
    if kind == "wrong token":
        fields["_xsrf"], cookies["_xsrf"] = "0" * 32, "f" * 32
    elif kind == "token of another cookie":
        page = desk.flower.get("/failures")
        fields["_xsrf"] = re.findall(r'name="_xsrf" value="([^"]+)"', page.text)[0]
        cookies["_xsrf"] = "2|00000000|" + "0" * 32 + "|1700000000"
    elif kind == "another site":
        headers = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    answer = requests.post(
        url, data=fields, headers=headers, cookies=cookies, auth=LOGIN, timeout=30
    )
    assert answer.status_code == 403
    assert desk.state(job_id) is State.FAILED


@pytest.mark.parametrize("path", PATHS[:4])
def test_pages_bring_nothing_from_outside_and_let_nothing_in(desk: Desk, path: str) -> None:
    """Every address is of this host; a policy has the browser see to it."""
    page = desk.flower.get(path)
    ours = page.text[page.text.index('class="page-section failures-page') :]
    assert re.findall(r'(?:src|href|action)="(?:https?:)?//', ours) == []
    assert " style=" not in ours
    assert " on" not in "".join(re.findall(r"<[^>]*>", ours)).replace(' only="', "")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["Cache-Control"] == "no-store"


# What they show.


def test_hostile_strings_stay_text(desk: Desk) -> None:
    """Whatever the API says or somebody stored, on every page it comes up on."""
    page_id = new_page_id()
    job_id = desk.fail(
        page_id=page_id, error_code=HOSTILE[:60], error_message=HOSTILE, metadata=HOSTILE
    )
    waiting = desk.fail(
        page_id=page_id, error_code="x", error_message=HOSTILE, state=State.RETRYING
    )
    for path in (
        f"/failures?page_id={page_id}",
        f"/failures/{job_id}",
        f"/failures/{waiting}",
        "/failures/waiting",
    ):
        page = desk.flower.get(path)
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert HOSTILE in unescape(page.text)
    for path in (f"/failures?text={HOSTILE}", f"/failures?error_code={HOSTILE}"):
        assert "<script>alert" not in desk.flower.get(path).text


@pytest.mark.parametrize(
    "query",
    [
        "within=%3Cscript%3E",
        "since=%3Cscript%3E",
        "after=%3Cscript%3E",
        "after=1-%00",
        "error_code=%FF%FE",
        "page_id=" + "9" * 5000,
        "text=" + "x" * 5000,
        "by=%3Cscript%3E",
    ],
)
def test_a_nonsensical_address_gets_words(desk: Desk, query: str) -> None:
    """Never a fault of the program."""
    page = desk.flower.get(f"/failures?{query}")
    assert page.status_code in (200, 400)
    assert "<script>a" not in page.text
    if page.status_code == 400:
        assert "That did not work" in page.text or "Bad Request" in page.text or page.text


def test_the_list_is_filtered_by_each_of_its_fields(desk: Desk) -> None:
    """By code, page, text and time; together they narrow."""
    page_id, other_page = new_page_id(), new_page_id()
    first = desk.fail(page_id=page_id, error_code="190", metadata="order 77001")
    second = desk.fail(page_id=page_id, error_code="551", metadata="order 77002")
    third = desk.fail(page_id=other_page, error_code="190", metadata="order 77003")
    for query, expected in [
        (f"page_id={page_id}", [second, first]),
        (f"page_id={page_id}&error_code=190", [first]),
        (f"page_id={other_page}&within=1h", [third]),
        (f"page_id={other_page}&until=2020-01-01T00:00Z", []),
        ("text=order+77002", [second]),
        (f"text=ORDER+7700&page_id={page_id}", [second, first]),
        (f"page_id={page_id}&since=2020-01-01T00:00Z&until=2090-01-01T00:00Z", [second, first]),
    ]:
        assert job_ids(desk.flower.get(f"/failures?{query}")) == expected, query


def test_a_whole_job_id_leads_to_the_job(desk: Desk) -> None:
    """Pasted from a log line."""
    job_id = desk.fail(page_id=new_page_id())
    found = desk.flower.get(f"/failures?text={job_id}", allow_redirects=False)
    assert (found.status_code, found.headers["Location"]) == (302, f"/failures/{job_id}")


def test_older_pages_follow_to_the_end(desk: Desk) -> None:
    """Each job once, fifty a page."""
    page_id = new_page_id()
    failed = [desk.fail(page_id=page_id, metadata=f"order {n}") for n in range(120)]
    path: str | None = f"/failures?page_id={page_id}"
    found: list[str] = []
    while path:
        page = desk.flower.get(path)
        found += job_ids(page)
        older = re.search(r'rel="next" href="([^"]+)"', page.text)
        path = "/failures" + unescape(older.group(1)) if older else None
    # Those of one millisecond come in the order of their ids.
    assert len(found) == len(set(found)) == 120
    assert set(found) == set(failed)


def test_the_page_counts_and_explains(desk: Desk) -> None:
    """How many, why and where, over time; the same as a table for who does not see the chart."""
    page_id = new_page_id()
    for _ in range(3):
        desk.fail(page_id=page_id, error_code="10/2018278")
    desk.fail(page_id=page_id, error_code="190")
    page = desk.flower.get(f"/failures?page_id={page_id}&within=1h")
    text = text_of(page)
    assert "4 failed failures on page" in text
    assert "10/2018278 3" in text
    assert "The messaging window is closed" in text
    assert f"Page {page_id} 4" in text
    counts = [int(n) for n in re.findall(r"<title>[^<]*: (\d+) failed</title>", page.text)]
    assert sum(counts) == 4
    assert 'aria-labelledby="chart-title' in page.text


def test_a_job_is_told_whole(desk: Desk) -> None:
    """State, reason, remedy, attempts, times and body; the person's id when it is asked for."""
    job_id = desk.fail(
        page_id=new_page_id(),
        error_code="190",
        error_message="token has expired",
        metadata="order 1001",
        recipient_id="2560816460648749",
    )
    page = desk.flower.get(f"/failures/{job_id}")
    text = text_of(page)
    for part in (
        *("failed", "190 token has expired", "Put a new token into HARASOCIAL_TOKEN"),
        *("attempt 1 HTTP 200 after 250 ms", "enqueued", '"metadata": "order 1001"'),
        *("Deadline", "at_least_once", "************8749"),
    ):
        assert part in text
    assert "2560816460648749" not in page.text
    shown = text_of(desk.flower.get(f"/failures/{job_id}?recipient=shown"))
    assert shown.count("2560816460648749") == 2


def test_an_unknown_code_has_the_apis_own_message(desk: Desk) -> None:
    """And no explanation made up."""
    job_id = desk.fail(page_id=new_page_id(), error_code="424242", error_message="Lỗi lạ")
    text = text_of(desk.flower.get(f"/failures/{job_id}"))
    assert "424242 Lỗi lạ" in text
    assert "the message is the API’s own" in text


def test_what_is_not_there_is_said(desk: Desk) -> None:
    """In Flower's style, with a way back."""
    for path in ("/failures/none", "/failures/" + "0" * 32, "/failures/replays/abc"):
        page = desk.flower.get(path)
        assert page.status_code == 404
        assert "Not found" in page.text
        assert 'href="/failures"' in page.text


def test_a_job_of_other_hands_can_be_looked_at(desk: Desk, valkey: EmbeddedValkey) -> None:
    """Its id may be anything; what it lacks is left out."""
    strange = "x/../%3Cb%3E?#é"
    prefix = f"{{{desk.settings.namespace}}}:"
    client = redis.Redis.from_url(valkey.url)
    client.hset(f"{prefix}job:{strange}", mapping={"state": "failed", "error_code": "invalid_job"})
    client.zadd(f"{prefix}failed", {strange: 1})
    page = desk.flower.get("/failures/" + requests.utils.quote(strange, safe=""))
    assert page.status_code == 200
    assert "invalid_job" in page.text
    assert desk.flower.get("/failures?until=1999-01-01T00:00Z").status_code == 200
    client.zrem(f"{prefix}failed", strange)
    client.close()


# What they change.


def test_one_job_is_sent_again(desk: Desk) -> None:
    """By the button of its page; a second press finds it queued."""
    job_id = desk.fail(page_id=new_page_id())
    page = desk.flower.post(f"/failures/{job_id}", {"action": "replay"})
    assert (page.status_code, page.url) == (200, f"{desk.flower.url}/failures/{job_id}")
    assert desk.state(job_id) is State.QUEUED
    assert 'data-live="1500"' in page.text
    assert desk.flower.post(f"/failures/{job_id}", {"action": "replay"}).status_code == 409
    assert desk.flower.post(f"/failures/{job_id}", {"action": "explode"}).status_code == 400


def test_a_waiting_job_is_called_off(desk: Desk) -> None:
    """By itself, or among those selected in the list; one that failed is not."""
    single, *some = (
        desk.fail(page_id=new_page_id(), state=State.RETRYING, error_code="http_503")
        for _ in range(4)
    )
    assert desk.flower.post(f"/failures/{single}", {"action": "cancel"}).status_code == 200
    listed = job_ids(desk.flower.get("/failures/waiting"))
    assert set(some) <= set(listed)
    assert single not in listed
    page = desk.flower.post("/failures/waiting", [("job_id", job_id) for job_id in some[:2]])
    assert "2 jobs called off" in text_of(page)
    states = [desk.state(job_id) for job_id in (single, *some)]
    assert states == [State.CANCELLED] * 3 + [State.RETRYING]
    failed = desk.fail(page_id=new_page_id())
    assert desk.flower.post(f"/failures/{failed}", {"action": "cancel"}).status_code == 409
    assert desk.flower.post("/failures/waiting", {}).status_code == 400


def test_a_scheduled_job_is_listed_and_called_off(desk: Desk) -> None:
    """With its time and payload."""
    new = parse_new_job(
        body("__hrf_f_later"), {"send_at": datetime.now(timezone.utc) + timedelta(hours=1)}
    )
    (job_id,) = desk.ledger.enqueue([new]).job_ids
    page = desk.flower.get("/failures/waiting?state=scheduled")
    assert job_id in job_ids(page)
    assert "__hrf_f_later" in page.text
    desk.flower.post("/failures/waiting", {"job_id": job_id, "state": "scheduled"})
    assert desk.state(job_id) is State.CANCELLED


@pytest.mark.parametrize("by", ["selection", "filter"])
def test_many_are_sent_again_after_a_count_and_an_agreement(desk: Desk, by: str) -> None:
    """Nothing is sent before it; then as many as were counted, and what became of them is shown."""
    page_id = new_page_id()
    failed = [desk.fail(page_id=page_id, error_code="551") for _ in range(3)]
    left = desk.fail(page_id=page_id, error_code="190")
    # when it is asked for
    fields = (
        [("job_id", job_id) for job_id in failed]
        if by == "selection"
        else {"what": "filter", "page_id": page_id, "error_code": "551"}
    )
    plan = desk.flower.post("/failures/replays", fields)
    path = plan.url.removeprefix(desk.flower.url)
    eventually(lambda: "would be sent again" in desk.flower.get(path).text, what="the count")
    plan = desk.flower.get(path)
    # then it says how many, and why they failed
    assert "3 messages would be sent again. Nothing has been sent yet." in text_of(plan)
    if by == "filter":
        assert "Do not replay; stop sending to this person." in text_of(plan)
    assert {desk.state(job_id) for job_id in failed} == {State.FAILED}
    # and when it is agreed to, they are queued, and the other is not
    assert desk.flower.post(path, {"action": "start", "rate": "100"}).status_code == 200
    eventually(lambda: "Done in" in desk.flower.get(path).text, what="the replay")
    assert "3 of 3" in text_of(desk.flower.get(path))
    assert {desk.state(job_id) for job_id in failed} == {State.QUEUED}
    assert desk.state(left) is State.FAILED
    assert "queued 3" in text_of(desk.flower.get(path))
    assert path in desk.flower.get("/failures/replays").text
    # and not twice
    assert desk.flower.post(path, {"action": "start", "rate": ""}).status_code == 409


@pytest.mark.parametrize("rate", ["0", "-1", "x", "nan", "inf", "1e9"])
def test_a_nonsensical_pace_is_refused(desk: Desk, rate: str) -> None:
    """And nothing is sent."""
    job_id = desk.fail(page_id=new_page_id())
    plan = desk.flower.post("/failures/replays", {"job_id": job_id})
    path = plan.url.removeprefix(desk.flower.url)
    assert desk.flower.post(path, {"action": "start", "rate": rate}).status_code == 400
    assert desk.state(job_id) is State.FAILED


def test_a_replay_is_called_off_while_it_runs(desk: Desk) -> None:
    """From its page, which also tells the other pages' readers that it runs."""
    page_id = new_page_id()
    failed = [desk.fail(page_id=page_id) for _ in range(4)]
    plan = desk.flower.post("/failures/replays", {"what": "filter", "page_id": page_id})
    path = plan.url.removeprefix(desk.flower.url)
    eventually(lambda: "4 messages" in text_of(desk.flower.get(path)), what="the count")
    desk.flower.post(path, {"action": "start", "rate": "0.5"})
    eventually(lambda: "1 of 4" in text_of(desk.flower.get(path)), what="the first")
    assert "Being sent again" in desk.flower.get("/failures").text
    desk.flower.post(path, {"action": "cancel"})
    eventually(lambda: "called off" in desk.flower.get(path).text, what="its end")
    assert sum(desk.state(job_id) is State.FAILED for job_id in failed) == 3


def test_nothing_selected_is_said(desk: Desk) -> None:
    """A press without a selection, where there is no script to prevent it."""
    page = desk.flower.post("/failures/replays", {"what": "selection"})
    assert (page.status_code, "No job was selected." in page.text) == (400, True)


# What they hand out.


def test_an_export_has_every_job_of_the_filter(desk: Desk) -> None:
    """As CSV and as JSON lines, also when it is longer than what is read at once."""
    page_id = new_page_id()
    failed = [desk.fail(page_id=page_id, metadata=f"order {n}") for n in range(520)]
    desk.fail(page_id=new_page_id())
    answer = desk.flower.get(f"/failures/export.csv?page_id={page_id}")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.content.decode())))
    assert len(rows) == 520
    assert {row["job_id"]: row["metadata"] for row in rows} == {
        job_id: f"order {number}" for number, job_id in enumerate(failed)
    }
    assert {row["recipient_id"] for row in rows} == {"2560816460648749"}
    answer = desk.flower.get(f"/failures/export.jsonl?page_id={page_id}&text=order+51")
    found = [json.loads(line) for line in answer.text.splitlines()]
    expected = {failed[number] for number in (*range(510, 520), 51)}
    assert {job["job_id"] for job in found} == expected
    assert found[0]["attempts"][0]["duration_ms"] == 250


@pytest.mark.parametrize("metadata", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "＝1+1"])
def test_a_spreadsheet_takes_no_cell_for_a_formula(desk: Desk, metadata: str) -> None:
    """Metadata comes from the web app's own users."""
    page_id = new_page_id()
    desk.fail(page_id=page_id, metadata=metadata, error_message=metadata)
    text = desk.flower.get(f"/failures/export.csv?page_id={page_id}").content.decode()
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["metadata"] == "'" + metadata
    assert row["error_message"] == "'" + metadata


def test_metrics_show_the_ledger_to_who_is_logged_in(desk: Desk) -> None:
    """Flower's own stay open, as its users know them; ours name pages."""
    page_id = new_page_id()
    desk.fail(page_id=page_id, error_code="77/77")
    new = parse_new_job(body(page_id=page_id))
    desk.ledger.enqueue([new, new])
    text = desk.flower.get("/metrics").text
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["harasocial_ledger_up",] == 1
    assert samples["harasocial_failed_jobs", "77/77"] == 1
    assert samples["harasocial_waiting_jobs", page_id] == 2
    assert samples["harasocial_jobs", "failed"] >= 1
    assert samples["harasocial_oldest_waiting_seconds",] >= 0
    assert "python_info" in text
    anonymous = desk.flower.get("/metrics", auth=None)
    assert anonymous.status_code == 200
    assert "python_info" in anonymous.text
    assert "harasocial_failed_jobs" not in anonymous.text
    assert "basic_auth" in anonymous.text
    claim_job(desk.ledger, desk.ledger.enqueue([new]).job_ids[0])


def test_without_redis_pages_say_so_and_come_back(
    start_flower: StartFlower,
) -> None:
    """503 with Retry-After and in words; the metrics say that the ledger is down."""
    with EmbeddedValkey(appendonly="yes") as own:
        settings = Settings(redis_url=own.url)
        ledger = Ledger(settings)
        flower = start_flower(REDIS_URL=own.url, NAMESPACE=settings.namespace)
        job_id = fail_job(ledger, page_id=new_page_id())
        own.kill()
        for path in ("/failures", f"/failures/{job_id}", "/failures/export.csv"):
            page = flower.get(path)
            assert page.status_code == 503
            assert page.headers["Retry-After"] == "5"
            assert "cannot be reached" in text_of(page)
        assert "harasocial_ledger_up 0.0" in flower.get("/metrics").text
        own.restart()
        eventually(lambda: flower.get("/failures").status_code == 200, what="the page")
        assert job_ids(flower.get("/failures")) == [job_id]
