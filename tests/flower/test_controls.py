"""Operators' controls in Flower: pauses and rates of pages, cancellations, the audit."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import requests
from harasocial_dispatch.flower.cancellations import (
    Cancellations,
    CancelStage,
    TrackedCancellation,
)
from harasocial_dispatch.ledger import AuditEntry, JobFilter, Ledger, Pause, Result
from harasocial_dispatch.producer.cancellation import Cancellation, CancelReport
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.schemas import (
    JobVerdict,
    LaneVerdict,
    Outcome,
    OutcomeClass,
    Settings,
    State,
    parse_new_job,
)
from support.flower_harness import (
    USER,
    Flower,
    FlowerHarness,
    StartFlower,
    claim_job,
    new_page_id,
    text_of,
)
from support.harness import DEADLINE_SECONDS, body, eventually, present


def enqueue(
    ledger: Ledger, count: int, *, page_id: str, payload_id: str = "__hrf_f_1"
) -> list[str]:
    return ledger.enqueue(
        [parse_new_job(body(payload_id, page_id=page_id), {}) for _ in range(count)]
    ).job_ids


def control(flower: Flower, page_id: str, **fields: str) -> requests.Response:
    """Send a form of a page's controls; without a page id, the form of all pages."""
    back = {"page_id": page_id, "back": "page" if page_id else ""}
    return flower.post("/overview/page", {**back, **fields})


def audit_of(harness: FlowerHarness, page_id: str) -> list[AuditEntry]:
    return [entry for entry in harness.ledger.reader.audit(20) if entry.page_id == page_id]


def pause_of(ledger: Ledger, page_id: str) -> Pause:
    (pause,) = ledger.reader.pauses_of(page_id)
    return pause


def test_a_page_is_paused_for_a_time_and_resumed(harness: FlowerHarness) -> None:
    """The pause has the reason and the login, is audited, and is shown on its page and the list."""
    page_id = new_page_id()
    enqueue(harness.ledger, 3, page_id=page_id)
    page = control(harness.flower, page_id, action="pause", reason="wrong <price>", minutes="60")
    assert "Paused: waiting messages stay queued" in text_of(page)
    assert f"By {USER}: wrong <price> , since" in text_of(page)
    assert "<price>" not in page.text
    pause = pause_of(harness.ledger, page_id)
    assert (pause.by, pause.note, pause.reason) == (USER, "wrong <price>", "manual")
    assert pause.until_ms == pytest.approx(harness.ledger.reader.now_ms() + 3_600_000, abs=30_000)

    page = control(harness.flower, page_id, action="resume")
    assert "Resumed." in text_of(page)
    assert harness.ledger.reader.pauses_of(page_id) == []
    page = control(harness.flower, page_id, action="resume")
    assert "There was no pause to end." in text_of(page)
    assert [(e.action, e.by, e.via) for e in audit_of(harness, page_id)] == [
        ("resume", USER, "flower"),
        ("pause", USER, "flower"),
    ]


def test_an_automatic_pause_can_be_probed_immediately(harness: FlowerHarness) -> None:
    """After a probe, the page stays paused until the message succeeds."""
    page_id = new_page_id()
    (job_id,) = enqueue(harness.ledger, 1, page_id=page_id)
    claim = claim_job(harness.ledger, job_id)
    result = Result(
        claim=claim,
        outcome=Outcome(outcome_class=OutcomeClass.AUTH, error_code="190"),
        job_verdict=JobVerdict(state=State.RETRYING, delay_seconds=3600),
        lane_verdict=LaneVerdict(effect="pause", reason="auth", pause_seconds=600),
        attempt_at_ms=claim.claimed_at_ms,
        attempt_duration_ms=250,
    )
    assert harness.ledger.record([result]) == [True]
    enqueue(harness.ledger, 1, page_id=page_id)
    page = harness.flower.get(f"/pages/{page_id}")
    assert "Its token was refused (190)" in text_of(page)
    assert ">Try now</button>" in page.text
    page = control(harness.flower, page_id, action="resume")
    assert "The page’s next message is sent now." in text_of(page)


def test_the_rate_of_a_page_is_set_and_reset(harness: FlowerHarness) -> None:
    """A rate above Facebook's limit has a warning."""
    page_id = new_page_id()
    page = control(harness.flower, page_id, action="rate", rate="20.5", burst="5")
    assert "The rate is set;" in text_of(page)
    assert f"20.5 messages per second, burst 5 (set by {USER})" in text_of(page)
    (rate,) = [rate for rate in harness.ledger.reader.rates() if rate.page_id == page_id]
    assert (rate.rate, rate.burst, rate.by) == (20.5, 5, USER)
    page = control(harness.flower, page_id, action="rate", rate="100", burst="5")
    assert "Facebook disables the inbox" in text_of(page).partition("Rate 100 ")[2][:200]
    page = control(harness.flower, page_id, action="default-rate")
    assert "(default)" in text_of(page)
    assert page_id not in [rate.page_id for rate in harness.ledger.reader.rates()]
    assert {entry.via for entry in audit_of(harness, page_id)} == {"flower"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"action": "explode"}, "There is no action 'explode'"),
        ({"action": "pause", "minutes": "-1"}, "for_seconds: Must be more than 0"),
        ({"action": "pause", "minutes": "nan"}, "minutes: Must be a number"),
        ({"action": "pause", "reason": "x" * 10_000}, "reason: "),
        ({"action": "rate", "rate": "1e9", "burst": "1"}, "rate: Must be"),
        ({"action": "rate", "rate": "", "burst": "1"}, "rate: Must be a number"),
        ({"action": "rate", "rate": "5", "burst": "0"}, "burst: Must be"),
        ({"action": "rate", "rate": "5", "burst": "1.5"}, "burst: Must be a whole number"),
    ],
)
def test_a_wrong_value_is_named_and_changes_nothing(
    harness: FlowerHarness, fields: dict[str, str], words: str
) -> None:
    """The errors are the same as on the command line."""
    page_id = new_page_id()
    page = control(harness.flower, page_id, **fields)
    assert page.status_code == 400
    assert words in text_of(page)
    assert harness.ledger.reader.pauses_of(page_id) == []
    assert page_id not in [rate.page_id for rate in harness.ledger.reader.rates()]


@pytest.mark.parametrize("page_id", ["x", "-1", "%00", "12%2F34", "<b>"])
def test_an_invalid_page_id_is_an_error(harness: FlowerHarness, page_id: str) -> None:
    """An invalid page id is rejected in a URL and in a form."""
    assert harness.flower.get(f"/pages/{page_id}").status_code == 400
    assert control(harness.flower, page_id, action="pause").status_code == 400


def test_a_page_is_opened_by_its_id(harness: FlowerHarness) -> None:
    """A page without waiting jobs can be opened too."""
    page_id = new_page_id()
    page = harness.flower.get(f"/pages?page_id={page_id}")
    assert page.url.endswith(f"/pages/{page_id}")
    assert "0 jobs waiting." in text_of(page)


def test_a_pause_of_all_pages_is_shown_on_every_page(
    start_flower: StartFlower, ledger: Ledger
) -> None:
    """The banner is shown until the pages are resumed."""
    (job_id,) = enqueue(ledger, 1, page_id=new_page_id())
    flower = start_flower()
    control(flower, "", action="pause", reason="maintenance")
    for path in ("/failures", f"/failures/{job_id}", "/failures/waiting", "/audit"):
        page = flower.get(path)
        assert f"All pages are paused by {USER}: maintenance , since" in text_of(page), path
    assert "Page *" not in flower.get("/failures").text
    assert ledger.claim(1).claims == []
    assert "all pages are paused" in text_of(flower.get("/failures/waiting?state=queued"))

    audit = flower.get("/audit")
    assert "all pages" in text_of(audit)
    assert re.search(r"/pages/(\*|%2A)", audit.text) is None

    control(flower, "", action="resume")
    assert "All pages are paused" not in flower.get("/failures").text
    assert len(ledger.claim(1).claims) == 1
    assert [(entry.action, entry.by) for entry in ledger.reader.audit(9)] == [
        ("resume", USER),
        ("pause", USER),
    ]


def test_jobs_of_a_filter_are_counted_confirmed_and_canceled(harness: FlowerHarness) -> None:
    """Nothing is canceled before the confirmation, and only matching jobs are canceled."""
    page_id, other_page = new_page_id(), new_page_id()
    wanted = enqueue(harness.ledger, 3, page_id=page_id, payload_id="__hrf_f_wrong")
    others = enqueue(harness.ledger, 1, page_id=page_id, payload_id="__hrf_f_right")
    others += enqueue(harness.ledger, 1, page_id=other_page, payload_id="__hrf_f_wrong")
    # when a cancellation is requested
    fields = {"page_id": page_id, "payload_id": "__hrf_f_wrong", "state": "", "since": ""}
    page = harness.flower.post("/cancellations", fields)
    path = page.url.removeprefix(harness.flower.url)
    eventually(lambda: "would be canceled" in harness.flower.get(path).text, what="the count")
    # then the page shows the count and the breakdown
    text = text_of(harness.flower.get(path))
    assert "3 jobs would be canceled. Nothing has been canceled yet." in text
    assert f"Waiting jobs of page {page_id} of payload __hrf_f_wrong" in text
    for part in ("By state queued 3", f"By page {page_id} 3", "By payload __hrf_f_wrong 3"):
        assert part in text
    assert {harness.state(job_id) for job_id in [*wanted, *others]} == {State.QUEUED}
    # and when it is confirmed, only these jobs are canceled, and no later job
    harness.let_a_millisecond_pass()
    later = enqueue(harness.ledger, 1, page_id=page_id, payload_id="__hrf_f_wrong")
    harness.flower.post(path, {"action": "start"})
    eventually(lambda: "3 of 3" in text_of(harness.flower.get(path)), what="the end")
    assert {harness.state(job_id) for job_id in wanted} == {State.CANCELLED}
    assert {harness.state(job_id) for job_id in [*others, *later]} == {State.QUEUED}
    entry = next(e for e in harness.ledger.reader.audit(20) if e.action == "cancel")
    assert (entry.by, entry.via, entry.count) == (USER, "flower", 3)
    assert harness.flower.post(path, {"action": "start"}).status_code == 409
    assert harness.flower.post(path, {"action": "explode"}).status_code == 400


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "has no condition"),
        ({"page_id": " "}, "has no condition"),
        ({"state": "sent"}, "cannot be canceled"),
        ({"state": "x"}, "'x' is not a valid State"),
        ({"page_id": "1", "since": "soon"}, "is not a time"),
        ({"page_id": "1", "since": "2026-02-01T00:00Z", "until": "2026-01-01T00:00Z"}, "after"),
    ],
)
def test_an_unsuitable_filter_is_rejected(
    harness: FlowerHarness, fields: dict[str, str], words: str
) -> None:
    """An empty filter would match every waiting job."""
    page = harness.flower.post("/cancellations", fields)
    assert page.status_code == 400
    assert words in text_of(page)
    assert harness.flower.get("/cancellations/abc").status_code == 404


class SlowCancellation(Cancellation):
    """Cancels jobs, and waits for `step` after each report."""

    def __init__(self, ledger: Ledger, page_id: str) -> None:
        super().__init__(ledger, JobFilter(page_ids=(page_id,)), by="thu@shop")
        self.step = threading.Semaphore(0)

    def run(self) -> Iterator[CancelReport]:
        for report in super().run():
            yield replace(report)
            self.step.acquire(timeout=DEADLINE_SECONDS)


def test_a_cancellation_is_stopped_and_one_is_resumed_after_an_outage() -> None:
    """The canceled jobs stay canceled and are counted. The rest still waits."""
    with EmbeddedValkey() as server:
        ledger = Ledger(Settings(redis_url=server.url), timeout_seconds=1.0)
        page_id, cancellations = new_page_id(), Cancellations()
        ids = enqueue(ledger, 5, page_id=page_id)
        tracked = TrackedCancellation(
            about="some", cancellation=(slow := SlowCancellation(ledger, page_id))
        )
        cancellations.plan(tracked)
        eventually(lambda: tracked.stage is CancelStage.READY, what="the count")
        assert (tracked.plan.count, ledger.reader.count_states()[State.QUEUED]) == (5, 5)

        # when Redis hangs after the first step
        assert cancellations.start(tracked)
        assert not cancellations.start(tracked)
        eventually(lambda: tracked.report.count == 5, what="the first step")
        server.pause()
        slow.step.release(9)
        eventually(lambda: tracked.stage is CancelStage.INTERRUPTED, what="the interruption")
        server.resume()
        assert "did not reply in time" in tracked.error
        # then it can be started again and stopped
        assert cancellations.start(tracked)
        eventually(lambda: tracked.stage is CancelStage.DONE, what="the end")
        assert tracked.canceled == 5
        assert not cancellations.stop(tracked)

        more = enqueue(ledger, 1, page_id=page_id)
        stopped = TrackedCancellation(about="x", cancellation=SlowCancellation(ledger, page_id))
        cancellations.plan(stopped)
        eventually(lambda: stopped.stage is CancelStage.READY, what="the count")
        assert cancellations.stop(stopped)
        assert not cancellations.start(stopped)
        states = [status.state for status in ledger.reader.statuses([*ids, *more]).values()]
        assert states == [State.CANCELLED] * 5 + [State.QUEUED]
        ledger.close()


def test_the_audit_is_listed_page_by_page(start_flower: StartFlower, ledger: Ledger) -> None:
    """Entries are listed once, the latest first, and hostile values are escaped."""
    page_ids = [new_page_id() for _ in range(30)]
    for page_id in page_ids:
        ledger.pause_page(page_id, by="thu@shop", via="cli", reason=f"<i>why {page_id}</i>")
        # Entries of the same millisecond have no fixed order.
        time.sleep(0.002)
    flower = start_flower()
    page = flower.get("/audit")
    assert "<i>why" not in page.text
    found = re.findall(r'href="/pages/([0-9]+)"', page.text)
    older = present(re.search(r'rel="next" href="([^"]+)"', page.text))
    page = flower.get(f"/audit{older.group(1)}")
    found += re.findall(r'href="/pages/([0-9]+)"', page.text)
    assert found == page_ids[::-1]
    assert "thu@shop (cli)" in text_of(page)
    for query in ("until=x", "until=0001-01-01T00:00Z", "until=9999-12-31T23:59:59Z"):
        assert flower.get(f"/audit?{query}").status_code in (200, 400)
