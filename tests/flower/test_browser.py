"""The operator's tasks in a real browser: failures are found, explained and replayed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import EmbeddedValkey, Sandbox
from harasocial_dispatch.schemas import Settings, State
from playwright.sync_api import Browser, Page, expect
from support.browser import open_browser, serious_faults
from support.flower_harness import PASSWORD, USER, Flower
from support.harness import WorkerProcess, body, environment, present, wait_until_ended

pytestmark = pytest.mark.needs("chromium")

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"
PAGE = "500725830264749"
WINDOW_CLOSED = "sandbox:code:10/2018278"


class Office:
    """The system under test: Valkey, an endpoint, a worker, Flower, and a browser."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.valkey = stack.enter_context(EmbeddedValkey(appendonly="yes"))
        self.sandbox = stack.enter_context(Sandbox())
        self.browser: Browser = stack.enter_context(open_browser())
        self.settings = Settings(redis_url=self.valkey.url, page_rate=0.0)
        self.producer = Producer(self.settings)
        self.ledger = Ledger(self.settings)
        stack.callback(self.ledger.close)
        stack.callback(self.producer.close)
        env = environment(
            self.settings,
            self.sandbox.url,
            FLOWER_BASIC_AUTH=f"{USER}:{PASSWORD}",
            RETRY_BASE_SECONDS=0.1,
            RETRY_MAX_SECONDS=0.5,
        )
        self.worker = WorkerProcess(env, folder)
        stack.callback(self.worker.kill)
        self.flower = Flower(env, folder)
        stack.callback(self.flower.kill)
        self.worker.start()
        self.flower.start()
        self.flower.wait_for_subscription()

    def enqueue(
        self, *payload_ids: str, page_id: str = "500725830264749", **more: Any
    ) -> list[str]:
        """Enqueue one message for each payload, and return the ids when all have ended."""
        ids = [self.producer.enqueue(body(p, page_id=page_id, **more)) for p in payload_ids]
        wait_until_ended(self.producer, ids)
        return ids

    @contextmanager
    def page(self, path: str = "", **options: Any) -> Iterator[Page]:
        """Yield a page of a logged-in browser.

        Fails if the page sends a request to another host, reports an error, or opens a dialog.
        """
        login = {"username": USER, "password": PASSWORD}
        context = self.browser.new_context(
            **{"base_url": self.flower.url, "http_credentials": login, **options}
        )
        faults: list[str] = []
        page = context.new_page()
        page.on("request", lambda request: faults.extend(_outside(request.url)))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        page.on("dialog", lambda dialog: dialog.dismiss())
        if path:
            page.goto(path)
        yield page
        context.close()
        assert faults == []


def _outside(url: str) -> list[str]:
    parts = urlsplit(url)
    return [] if parts.scheme == "data" or parts.hostname == "127.0.0.1" else [url]


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with ExitStack() as stack:
        yield Office(tmp_path_factory.mktemp("office"), stack)


@pytest.fixture
def own_office(tmp_path: Path) -> Iterator[Office]:
    """An office without the jobs of other tests."""
    with ExitStack() as stack:
        yield Office(tmp_path, stack)


def test_a_failure_is_found_explained_and_replayed(own_office: Office) -> None:
    """The operator's scenario, from an error code in a log to a delivered message."""
    # given some messages outside the window, and some that a broken endpoint rejected
    closed = own_office.enqueue(*[f"{WINDOW_CLOSED}#{n}" for n in range(3)])
    own_office.sandbox.fail_with(400)
    broken = own_office.enqueue(*[f"__hrf_f_{n}" for n in range(4)], page_id="600725830264749")
    own_office.sandbox.fail_with(None)

    with own_office.page("/tasks") as page:
        # when the operator searches Flower's own list by error code
        page.get_by_role("searchbox").fill("result:2018278")
        rows = page.locator("#tasks-table tbody tr")
        expect(rows).to_have_count(3)
        expect(rows.first).to_contain_text("FAILURE")
        expect(rows.first).to_contain_text("10/2018278: ")
        page.locator("#tasks-table tbody a[href*='/task/']").first.click()
        # then the task has the job's error and attempts
        expect(page.locator(".task-uuid-value code")).to_have_text(one_of(closed))
        expect(page.locator(".task-details-card")).to_contain_text("************8749")
        expect(page.locator(".task-details-card")).to_contain_text("HTTP 200 after")

        # and it links to the job's page, which explains the error
        page.get_by_role("link", name="Open in Failures").click()
        expect(page.get_by_role("heading", level=1)).to_have_text(one_of(closed))
        expect(page.locator(".failures-why")).to_contain_text("The messaging window is closed")
        expect(page.locator(".failures-timeline")).to_contain_text("attempt 1")

        # when the failures are filtered by another code, and one of them is replayed
        page.get_by_role("link", name="Failures", exact=True).click()
        page.get_by_label("Error code", exact=True).fill("http_400")
        page.get_by_role("button", name="Filter", exact=True).click()
        expect(page.locator(".failures-table tbody tr")).to_have_count(4)
        assert "error_code=http_400" in page.url
        assert "since=" not in page.url
        page.locator(".failures-when a").first.click()
        page.get_by_role("button", name="Replay…").click()
        expect(page.locator(".failures-warnings")).to_contain_text(
            "1 job needs attention before a replay"
        )
        page.get_by_role("button", name="Replay 1").click()
        page.get_by_role("link", name="The job").click()
        # then its page shows when it was sent, without a reload
        expect(page.locator(".failures-state")).to_contain_text("sent")
        expect(page.locator(".failures-timeline")).to_contain_text("attempt 2")

        # when the rest of the filter is replayed
        page.goto("/failures?error_code=http_400")
        page.get_by_role("button", name="Replay all 3…").click()
        expect(page.locator(".failures-big")).to_have_text("3")
        assert states(own_office, broken).count(State.FAILED) == 3
        page.get_by_label("Jobs per second").fill("50")
        page.get_by_role("button", name="Replay 3").click()
        # then the page shows their states
        expect(page.locator(".failures-became")).to_have_text("sent 3")
        assert set(states(own_office, broken)) == {State.SENT}
        assert [job.accepted for job in own_office.sandbox.jobs()].count(1) == 4

    # when the worker and Flower are restarted
    own_office.worker.terminate()
    own_office.flower.restart()
    own_office.worker.start()
    with own_office.page("/tasks") as page:
        # then Flower has lost its tasks, but all failures are still listed
        expect(page.locator("#tasks-table tbody")).to_contain_text("No tasks have been received")
        page.get_by_role("link", name="Failures", exact=True).click()
        expect(page.locator(".failures-table tbody tr")).to_have_count(3)
        expect(page.locator(".failures-table")).to_contain_text("10/2018278")
    assert states(own_office, closed) == [State.FAILED] * 3


@pytest.mark.parametrize("path", ["/", "/tasks", "/failures"])
def test_a_wrong_password_is_rejected(office: Office, path: str) -> None:
    """Flower's pages and our pages require the password."""
    context = office.browser.new_context(
        base_url=office.flower.url,
        http_credentials={"username": USER, "password": "not-the-password"},
    )
    answer = present(context.new_page().goto(path))
    assert (answer.status, answer.text()) == (401, "Access denied")
    context.close()


def one_of(ids: list[str]) -> re.Pattern[str]:
    return re.compile("|".join(ids))


def states(office: Office, ids: list[str]) -> list[State]:
    return [office.producer.get_job(job_id).state for job_id in ids]


def test_hostile_strings_stay_text(office: Office) -> None:
    """Strings of the web app's users and the API are text, on our pages and on Flower's."""
    (job_id,) = office.enqueue(
        f"sandbox:code:{HOSTILE.replace(':', '%3A')}", page_id="700725830264749", metadata=HOSTILE
    )
    with office.page() as page:
        for path in ("/failures?page_id=700725830264749", f"/failures/{job_id}", f"/task/{job_id}"):
            page.goto(path)
            expect(page.locator("main")).to_contain_text("<img src=x onerror=alert(1)>")
            assert page.locator("main img").count() == 0
        page.goto("/tasks")
        page.get_by_role("searchbox").fill(job_id)
        expect(page.locator(f"tr[id='{job_id}']")).to_contain_text("<img src=x")


def test_a_form_of_another_site_is_rejected(office: Office) -> None:
    """The browser is logged in, but the forged form has no token."""
    (job_id,) = office.enqueue(f"{WINDOW_CLOSED}#forged", page_id="800725830264749")
    context = office.browser.new_context(http_credentials={"username": USER, "password": PASSWORD})
    page = context.new_page()
    page.goto(f"{office.flower.url}/failures")
    page.set_content(
        f'<form method="post" action="{office.flower.url}/failures/{job_id}">'
        '<input name="action" value="replay"><button>Win a prize</button></form>'
    )
    with page.expect_response(lambda response: job_id in response.url) as answer:
        page.get_by_role("button").click()
    assert answer.value.status == 403
    context.close()
    assert states(office, [job_id]) == [State.FAILED]


def test_the_keyboard_is_enough(office: Office) -> None:
    """The keyboard can filter, select, and replay up to the confirmation."""
    page_id = "900725830264749"
    office.enqueue(*[f"{WINDOW_CLOSED}#k{n}" for n in range(2)], page_id=page_id)
    with office.page("/failures") as page:
        page.keyboard.press("Tab")
        expect(page.get_by_text("Skip to main content")).to_be_focused()
        page.get_by_label("Page", exact=True).focus()
        page.keyboard.type(page_id)
        page.keyboard.press("Enter")
        expect(page.locator(".failures-table tbody tr")).to_have_count(2)
        button = page.get_by_role("button", name="Replay selected…")
        expect(button).to_be_disabled()
        page.get_by_role("checkbox", name="Select all on this page").focus()
        page.keyboard.press("Space")
        expect(page.get_by_text("2 selected")).to_be_visible()
        page.keyboard.press("Tab")
        expect(button).to_be_focused()
        assert "solid" in button.evaluate("element => getComputedStyle(element).outline")
        page.keyboard.press("Enter")
        expect(page.locator(".failures-replay")).to_contain_text("Nothing has been replayed yet")


def test_the_form_accepts_several_codes(office: Office) -> None:
    """There is one more field than codes. Empty fields are not added to the URL."""
    with office.page("/failures?error_code=190") as page:
        page.get_by_label("or error code").fill("551")
        page.keyboard.press("Enter")
        page.wait_for_url("**/failures?error_code=190&error_code=551")
        expect(page.locator("input[name=error_code]")).to_have_count(3)
        page.get_by_label("Error code", exact=True).fill("")
        page.keyboard.press("Enter")
        page.wait_for_url("**/failures?error_code=551")


def test_the_user_chooses_the_language_of_explanations(office: Office) -> None:
    """The choice by keyboard applies to every page until it is changed."""
    (job_id,) = office.enqueue(f"{WINDOW_CLOSED}#vi", page_id="130725830264749")
    with office.page(f"/failures/{job_id}", locale="en-US") as page:
        why = page.locator(".failures-why")
        expect(why).to_contain_text("The messaging window is closed")
        page.get_by_role("button", name="Tiếng Việt").focus()
        page.keyboard.press("Enter")
        expect(why).to_contain_text("Đã hết khung giờ được nhắn tin")
        expect(page.get_by_role("button", name="Tiếng Việt", pressed=True)).to_be_visible()
        assert page.url.endswith(f"/failures/{job_id}")
        assert serious_faults(page) == []
        page.goto("/failures?page_id=130725830264749")
        expect(page.locator("main")).to_contain_text("Không gửi lại 1")
        assert serious_faults(page) == []
        page.get_by_role("button", name="English").click()
        expect(page.locator("main")).to_contain_text("Do not replay 1")
    with office.page(f"/failures/{job_id}", locale="vi-VN") as page:
        expect(page.locator(".failures-why")).to_contain_text("Đã hết khung giờ được nhắn tin")


def test_times_are_in_the_browsers_zone(office: Office) -> None:
    """Times are shown and entered in the browser's zone, and sent in UTC."""
    (job_id,) = office.enqueue(f"{WINDOW_CLOSED}#zone", page_id="110725830264749")
    failed_at = present(office.producer.get_job(job_id).finished_at)
    with office.page(f"/failures/{job_id}", timezone_id="Asia/Ho_Chi_Minh") as page:
        shown = page.locator(".failures-timeline time").last
        assert shown.get_attribute("title") == f"{failed_at:%Y-%m-%d %H:%M:%S} UTC"
        assert f"{(failed_at.hour + 7) % 24:02d}:{failed_at:%M:%S}" in (shown.text_content() or "")
        page.goto("/failures")
        page.get_by_label("From (your time)").fill("2026-01-31T07:00:00")
        page.get_by_role("button", name="Filter", exact=True).click()
        page.wait_for_url("**since=2026-01-31T00%3A00%3A00.000Z**")
        expect(page.get_by_label("From (your time)")).to_have_value("2026-01-31T07:00")


def test_a_page_is_paused_limited_and_resumed_by_keyboard(office: Office) -> None:
    """Each control shows its result, and can be undone."""
    page_id = "140725830264749"
    with office.page("/overview") as page:
        # when a page is opened by its id and paused with a reason and a duration
        page.get_by_label("Page id").focus()
        page.keyboard.type(page_id)
        page.keyboard.press("Enter")
        page.get_by_text("Pause…").focus()
        page.keyboard.press("Enter")
        page.get_by_label("Reason").focus()
        page.keyboard.type("wrong price")
        page.keyboard.press("Tab")
        expect(page.get_by_label("For how long")).to_be_focused()
        page.keyboard.type("2 hours")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        # then the pause is shown, and its jobs wait
        expect(page.get_by_role("status").first).to_contain_text("Paused: waiting")
        expect(page.get_by_role("heading", name="Paused")).to_be_visible()
        (pause,) = office.ledger.reader.pauses_of(page_id)
        assert (pause.note, pause.by) == ("wrong price", USER)
        ids = [office.producer.enqueue(body(page_id=page_id)) for _ in range(3)]
        page.goto("/failures/waiting?state=queued")
        row = page.locator("tr", has_text=f"Page {page_id}")
        expect(row).to_contain_text("wrong price")
        expect(row).to_contain_text("3")

        # when its rate is set
        row.get_by_role("link").click()
        page.get_by_label("Messages per second").fill("12")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status").first).to_contain_text("The rate is set")
        assert [rate.rate for rate in office.ledger.reader.rates()] == [12.0]
        page.get_by_role("button", name="Use the default").click()
        expect(page.get_by_text("(default)").first).to_be_visible()

        # when it is resumed, the rest is sent
        page.goto(f"/pages/{page_id}")
        page.get_by_role("button", name="Resume").click()
        expect(page.get_by_role("status").first).to_contain_text("Resumed.")
        wait_until_ended(office.producer, ids)
        assert set(states(office, ids)) == {State.SENT}

        # and the audit has all actions
        page.goto("/audit")
        actions = page.locator("tr", has_text=page_id).locator("strong")
        assert actions.all_text_contents() == ["resume", "rate", "rate", "pause"]


def test_jobs_are_canceled_by_a_filter_with_the_keyboard(office: Office) -> None:
    """Matching jobs are counted and listed first. The other jobs of the page still wait."""
    page_id = "150725830264749"
    office.producer.pause_page(page_id)
    ids = [office.producer.enqueue(body(f"__hrf_f_{n % 2}", page_id=page_id)) for n in range(4)]
    with office.page("/failures/waiting?state=queued") as page:
        page.get_by_text("Cancel jobs by filter…").focus()
        page.keyboard.press("Enter")
        page.get_by_label("Page", exact=True).fill(page_id)
        page.get_by_label("Payload", exact=True).fill("__hrf_f_1")
        page.keyboard.press("Enter")
        expect(page.locator(".failures-replay")).to_contain_text("Nothing has been canceled yet")
        expect(page.get_by_label("By payload")).to_contain_text("__hrf_f_1")
        assert serious_faults(page) == []
        page.get_by_role("button", name="Cancel 2 jobs").focus()
        page.keyboard.press("Enter")
        expect(page.locator(".failures-big")).to_have_text("2 of 2")
        assert states(office, ids) == [State.QUEUED, State.CANCELLED] * 2
        page.goto(f"/pages/{page_id}")
        page.get_by_role("button", name="Count the jobs…").click()
        page.get_by_role("button", name="Cancel 2 jobs").click()
        expect(page.locator(".failures-big")).to_have_text("2 of 2")
        assert set(states(office, ids)) == {State.CANCELLED}
    office.producer.resume_page(page_id)


def test_a_pause_of_all_pages_is_ended_from_any_page(office: Office) -> None:
    """The banner on every page has the button."""
    office.producer.pause_all(reason="maintenance")
    with office.page("/failures") as page:
        banner = page.get_by_role("status").filter(has_text="All pages are paused")
        expect(banner).to_contain_text("maintenance")
        assert serious_faults(page) == []
        banner.get_by_role("button", name="Resume all pages").click()
        expect(page.get_by_role("status").first).to_contain_text("Resumed.")
    assert office.ledger.reader.pause_of_all() is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible_also_on_a_phone(office: Office, scheme: str) -> None:
    """There are no serious violations and no overflow, in both color schemes."""
    page_id = f"12072583026474{len(scheme)}"
    failed = office.enqueue(*[f"{WINDOW_CLOSED}#a{n}" for n in range(3)], page_id=page_id)
    later = office.producer.enqueue(body(page_id=page_id), send_at=_tomorrow())
    with office.page(color_scheme=scheme, viewport={"width": 1280, "height": 900}) as page:
        backgrounds = set()
        paths = [
            *("/failures", f"/failures?page_id={page_id}&error_code=10/2018278"),
            *(f"/failures/{failed[0]}", f"/failures/{later}", "/failures/waiting?state=scheduled"),
            *("/failures/replays", "/failures/waiting", "/failures/waiting?state=queued"),
            *(f"/pages/{page_id}", "/audit"),
        ]
        for path in paths:
            page.goto(path)
            assert serious_faults(page) == [], path
            backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            page.set_viewport_size({"width": 360, "height": 740})
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
            if path in paths[:3]:
                assert serious_faults(page) == [], path
            page.set_viewport_size({"width": 1280, "height": 900})
        assert len(backgrounds) == 1
        red = int(backgrounds.pop().split("(")[1].split(",")[0])
        assert (red < 64) is (scheme == "dark")
        # The confirmation page is checked too.
        page.goto(f"/failures?page_id={page_id}")
        page.get_by_role("button", name="Replay all 3…").click()
        expect(page.locator(".failures-replay")).to_contain_text("would be replayed")
        assert serious_faults(page) == []
    office.producer.cancel(later)


def test_a_phone_shows_the_latest_end_of_the_chart_and_a_short_list(office: Office) -> None:
    """The chart scrolls horizontally, and a page of long errors has a limited height."""
    page_id = "160725830264749"
    office.enqueue(
        *[f"{WINDOW_CLOSED}#{'long' * 20}{n}" for n in range(30)],
        page_id=page_id,
        metadata="order " * 20,
    )
    size = {"width": 360, "height": 740}
    with office.page(f"/failures?page_id={page_id}&within=1h", viewport=size) as page:
        expect(page.locator(".failures-table tbody tr")).to_have_count(25)
        assert page.evaluate("document.documentElement.scrollHeight") < 6000
        chart = page.locator(".failures-chart-scroll")
        shown, whole = chart.bounding_box(), chart.locator("svg").bounding_box()
        assert shown is not None
        assert whole is not None
        assert whole["width"] > shown["width"] + 100
        assert whole["x"] + whole["width"] == pytest.approx(shown["x"] + shown["width"], abs=1)


def _tomorrow() -> datetime:
    return datetime.now(timezone.utc) + timedelta(days=1)
