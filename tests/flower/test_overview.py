"""The Overview and the pages of campaigns: their data and their controls."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from typing import Any

import pytest
import requests
from harasocial_dispatch.flower.overview import condition, page_cards, progress
from harasocial_dispatch.ledger import (
    ALL_PAGES,
    APP_THROTTLED,
    MANUAL,
    Campaign,
    Ledger,
    PageRate,
    Pause,
)
from harasocial_dispatch.schemas import LaneVerdict, State, from_ms, parse_new_job
from playwright.sync_api import Browser, Page, expect
from support.browser import open_browser, serious_faults
from support.flower_harness import (
    LOGIN,
    PASSWORD,
    USER,
    Flower,
    FlowerHarness,
    StartFlower,
    new_page_id,
    text_of,
)
from support.harness import body, eventually, present
from support.results import make_result

HOSTILE = "<img src=x onerror=alert(1)>"


def pause(page_id: str, reason: str = MANUAL, **more: Any) -> Pause:
    return Pause(page_id=page_id, reason=reason, until_ms=None, **more)


def test_paused_pages_come_first_then_the_longest_lanes() -> None:
    """Each page has its effective rate, and the time that its jobs need at this rate."""
    cards = page_cards(
        {"1": 60, "2": 90, "3": 5},
        [
            pause("4", waiting=7),
            pause("3", "failing"),
            pause(ALL_PAGES),
            pause("token:f1e2", APP_THROTTLED),
        ],
        [PageRate(page_id="2", rate=0.5, burst=1, by="linh", at_ms=0)],
        default_rate=30,
    )
    assert [(card.page_id, card.waiting, card.rate, card.seconds_left) for card in cards] == [
        ("4", 7, 30, None),
        ("3", 5, 30, None),
        ("2", 90, 0.5, 180),
        ("1", 60, 30, 2),
    ]
    assert [card.is_paused_by_operator for card in cards] == [True, False, False, False]


def test_a_page_without_a_limit_has_no_time_left() -> None:
    """The time depends only on the endpoint."""
    (card,) = page_cards({"1": 60}, [], [], default_rate=0)
    assert card.seconds_left is None


def campaign(rows: int, **more: Any) -> Campaign:
    states = dict.fromkeys(State, 0) | more.pop("states", {})
    return Campaign(name="spring", rows=rows, states=states, **more)


@pytest.mark.parametrize(
    ("rows", "states", "widths"),
    [
        (0, {}, [0, 0, 0]),
        (200, {State.SENT: 50, State.FAILED: 10, State.CANCELLED: 100}, [25, 5, 50]),
        # If more jobs have ended than were announced, the bar is full.
        (10, {State.SENT: 8, State.FAILED: 5}, [80, 20, 0]),
    ],
)
def test_progress_is_a_share_of_all_rows(
    rows: int, states: dict[State, int], widths: list[float]
) -> None:
    """Rows that are not enqueued yet are included."""
    shares = progress(campaign(rows, states=states))
    assert [share.width for share in shares] == widths
    assert [share.begins for share in shares] == [0, widths[0], widths[0] + widths[1]]


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({}, "waiting"),
        ({"started_at": from_ms(1)}, "running"),
        ({"started_at": from_ms(1), "canary_left": 0}, "held"),
        ({"started_at": from_ms(1), "canceled": True}, "being canceled"),
        ({"finished_at": from_ms(2), "canceled": True}, "canceled"),
        ({"finished_at": from_ms(2)}, "finished"),
    ],
)
def test_a_campaigns_condition_is_one_word(facts: dict[str, Any], word: str) -> None:
    """If several conditions apply, the most important one is shown."""
    assert condition(campaign(1, **facts)) == word


# Over HTTP.


def enqueue(ledger: Ledger, page_id: str, count: int = 3, **options: Any) -> None:
    """Enqueue messages to different recipients."""
    ledger.enqueue(
        [
            parse_new_job(
                {**body(page_id=page_id), "recipient": {"id": str(10**15 + n)}}, dict(options)
            )
            for n in range(count)
        ]
    )


def test_the_home_page_is_the_overview_and_flowers_is_kept(harness: FlowerHarness) -> None:
    """`/` redirects to the Overview, and the workers have their own URL."""
    assert harness.flower.get("/").url.endswith("/overview")
    workers = harness.flower.get("/workers")
    assert workers.status_code == 200
    assert 'href="/overview"' in workers.text


@pytest.mark.parametrize("path", ["/", "/overview", "/campaigns", "/campaigns/spring"])
def test_the_pages_need_a_login(harness: FlowerHarness, path: str) -> None:
    """The pages require the login, as all other pages do."""
    assert harness.flower.get(path, auth=None).status_code == 401


def test_texts_of_operators_are_escaped(harness: FlowerHarness) -> None:
    """Reasons can contain any text."""
    page_id = new_page_id()
    harness.ledger.pause_page(page_id, reason=HOSTILE, by=HOSTILE)
    enqueue(harness.ledger, page_id, campaign="hostile")
    harness.ledger.hold_campaign("hostile", HOSTILE, by=HOSTILE)
    for path in ("/overview", "/campaigns/hostile"):
        page = harness.flower.get(path).text
        assert HOSTILE not in page
        assert HOSTILE in unescape(page)


def test_a_canceled_campaign_shows_how_many_rows_were_not_sent(harness: FlowerHarness) -> None:
    name = f"c{new_page_id()}"
    enqueue(harness.ledger, new_page_id(), 3, campaign=name)
    harness.ledger.cancel_campaign(name, by="ann")
    eventually(lambda: harness.ledger.continue_campaign_work(name) == (False, 0))
    lines = text_of(harness.flower.get("/campaigns"))
    assert f"{name} canceled 3 of 3, 3 canceled" in lines


def test_a_pause_of_a_tokens_pages_is_shown(start_flower: StartFlower, ledger: Ledger) -> None:
    """It is a banner, because it is not known which pages use the token."""
    enqueue(ledger, "1", 1)
    (claim,) = ledger.claim(1).claims
    lane = LaneVerdict(effect="pause_token", reason="app_throttled", pause_seconds=600)
    result = make_result(claim, State.RETRYING, "4", delay_seconds=600, lane=lane)
    assert ledger.record([replace(result, token_fingerprint="f1e2")]) == [True]
    flower = start_flower()
    for path in ("/overview", "/failures"):
        page = flower.get(path)
        assert "All pages of the token f1e2" in text_of(page)
        assert "token:" not in page.text


@pytest.mark.parametrize(
    ("path", "fields", "status", "words"),
    [
        ("/overview/page", {"action": "pause", "page_id": "no page"}, 400, "page"),
        ("/overview/page", {"action": "rate", "page_id": "1", "rate": "fast"}, 400, "rate"),
        ("/overview/page", {"action": "rate", "page_id": "1", "rate": "-1"}, 400, "rate"),
        ("/overview/page", {"action": "rate", "page_id": "1", "rate": "nan"}, 400, "rate"),
        ("/overview/page", {"action": "pause", "page_id": "1", "minutes": "x"}, 400, "minutes"),
        ("/overview/page", {"action": "dance", "page_id": "1"}, 400, "dance"),
        ("/campaigns/unknown", {"action": "hold"}, 404, "unknown"),
    ],
)
def test_an_invalid_form_gets_a_message_and_changes_nothing(
    harness: FlowerHarness, path: str, fields: dict[str, str], status: int, words: str
) -> None:
    """Browsers do not send these values, but other programs can."""
    before = harness.ledger.reader.pauses(), harness.ledger.reader.rates()
    reply = harness.flower.post(path, fields)
    assert reply.status_code == status
    assert words in reply.text
    assert (harness.ledger.reader.pauses(), harness.ledger.reader.rates()) == before


def test_a_form_without_its_token_is_rejected(harness: FlowerHarness) -> None:
    """Another site cannot submit these forms."""
    fields = {"action": "pause", "page_id": ""}
    reply = requests.post(f"{harness.flower.url}/overview/page", fields, auth=LOGIN, timeout=30)
    assert reply.status_code == 403
    assert not any(each.page_id == ALL_PAGES for each in harness.ledger.reader.pauses())


def test_a_read_only_flower_has_no_controls(start_flower: StartFlower, ledger: Ledger) -> None:
    """It also rejects requests that change something."""
    page_id = new_page_id()
    enqueue(ledger, page_id, campaign="spring")
    flower = start_flower("--read-only")
    for path in ("/overview", "/campaigns/spring"):
        page = flower.get(path).text
        assert 'name="action"' not in page
        assert "Pause" not in page.replace("Pause updates", "")
    for path, action in (("/overview/page", "pause"), ("/campaigns/spring", "hold")):
        assert flower.post(path, {"action": action, "page_id": page_id}).status_code == 403
    assert ledger.reader.pauses() == []


# In a browser.


class Screen:
    """The system under test: a ledger with a waiting page and campaign, Flower, and a browser."""

    def __init__(self, flower: Flower, ledger: Ledger, browser: Browser) -> None:
        self.flower, self.ledger, self.browser = flower, ledger, browser
        self.page_id = new_page_id()
        enqueue(ledger, self.page_id, 12)
        enqueue(ledger, self.page_id, 30, campaign="spring")

    def open(self, path: str, **options: Any) -> Page:
        login = {"username": USER, "password": PASSWORD}
        context = self.browser.new_context(
            **{"base_url": self.flower.url, "http_credentials": login, **options}
        )
        page = context.new_page()
        page.goto(path)
        return page

    def pauses(self) -> list[Pause]:
        return self.ledger.reader.pauses()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def screen(start_flower: StartFlower, ledger: Ledger, browser: Browser) -> Screen:
    return Screen(start_flower(PAGE_RATE=30), ledger, browser)


@pytest.mark.needs("chromium")
def test_an_operator_pauses_limits_and_resumes_a_page(screen: Screen) -> None:
    """Each control of a card works. The reason and the login are recorded."""
    page = screen.open("/")
    card = page.get_by_role("article", name=f"Page {screen.page_id}")
    expect(card).to_contain_text("42")

    card.get_by_label(f"Pause page {screen.page_id}", exact=True).click()
    card.get_by_label("Reason").fill("a customer complained")
    card.get_by_label("For how long").select_option("2 hours")
    card.get_by_role("button", name=f"Pause page {screen.page_id}").click()
    expect(card).to_contain_text(f"Paused by {USER}: a customer complained. Until ")
    (paused,) = screen.pauses()
    assert (paused.note, paused.by, paused.until_ms is None) == (
        "a customer complained",
        USER,
        False,
    )

    card.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("status").first).to_contain_text("Resumed")
    assert screen.pauses() == []

    card.get_by_label(f"Set the rate of page {screen.page_id}").click()
    card.get_by_label("Messages per second").fill("6")
    card.get_by_role("button", name="Set the rate").click()
    expect(card).to_contain_text("6/s (set by an operator)")
    expect(card).to_contain_text("7.0 s")
    (rate,) = screen.ledger.reader.rates()
    assert (rate.rate, rate.by) == (6, USER)
    card.get_by_label(f"Set the rate of page {screen.page_id}").click()
    card.get_by_role("button", name="Use the default").click()
    expect(card).to_contain_text("30/s")
    assert screen.ledger.reader.rates() == []
    page.context.close()


@pytest.mark.needs("chromium")
def test_an_operator_pauses_and_resumes_all_pages(screen: Screen) -> None:
    """The banner is shown until the pages are resumed."""
    page = screen.open("/overview")
    page.get_by_text("Pause all pages…").click()
    page.get_by_role("button", name="Pause all pages").click()
    expect(page.locator("#page-all")).to_contain_text("All pages are paused")
    assert [each.page_id for each in screen.pauses()] == [ALL_PAGES]
    page.get_by_role("button", name="Resume all pages").click()
    expect(page.locator("#page-all")).to_have_count(0)
    assert screen.pauses() == []
    page.context.close()


@pytest.mark.needs("chromium")
def test_an_operator_holds_releases_and_cancels_a_campaign(screen: Screen) -> None:
    """The campaign is opened from the Overview."""
    page = screen.open("/overview")
    page.get_by_role("link", name="spring").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("spring")
    page.get_by_text("Hold…").click()
    page.get_by_label("Reason").fill("wrong picture")
    page.get_by_role("button", name="Hold the campaign").click()
    expect(page.locator(".alert-warning")).to_contain_text(f"Held: wrong picture. By {USER}")

    def found() -> Campaign:
        return present(screen.ledger.reader.campaign("spring"))

    assert found().held
    page.get_by_role("button", name="Release").click()
    expect(page.locator(".alert-warning")).to_have_count(0)
    assert not found().held
    page.get_by_text("Cancel…").click()
    expect(page.locator(".overview-form:visible")).to_contain_text("30 jobs")
    page.get_by_role("button", name="Cancel the campaign").click()
    expect(page.locator(".badge").first).to_have_text(re.compile("cancel"))
    assert found().canceled
    page.context.close()


@pytest.mark.needs("chromium")
def test_the_overview_is_updated_until_updates_are_paused(screen: Screen) -> None:
    """The user can pause and resume the updates."""
    page = screen.open("/overview")
    queued = page.locator(".overview-state", has_text="queued").locator("dd")
    expect(queued).to_have_text("42")
    enqueue(screen.ledger, screen.page_id, 1)
    expect(queued).to_have_text("43")
    page.get_by_role("button", name="Pause updates").click()
    updates: list[str] = []
    page.on("request", lambda request: updates.append(request.url))
    enqueue(screen.ledger, screen.page_id, 1)
    # Twice the interval of updates.
    page.wait_for_timeout(6000)
    assert updates == []
    page.get_by_role("button", name="Resume updates").click()
    expect(queued).to_have_text("44")
    page.context.close()


@pytest.mark.needs("chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_are_accessible_and_fit_a_phone(screen: Screen, scheme: str) -> None:
    """Axe finds no violations, and nothing is wider than the screen of 390 pixels."""
    screen.ledger.pause_page(screen.page_id, reason="a reason", by="linh")
    screen.ledger.hold_campaign("spring", "a reason", by="linh")
    page = screen.open("/overview", color_scheme=scheme, viewport={"width": 390, "height": 844})
    for path in ("/overview", "/campaigns", "/campaigns/spring"):
        page.goto(path)
        page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
        assert serious_faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.context.close()


@pytest.mark.needs("chromium")
def test_a_card_can_be_used_by_keyboard(screen: Screen) -> None:
    """Tab reaches each control, and Enter opens and submits it."""
    page = screen.open("/overview")
    page.get_by_label(f"Pause page {screen.page_id}", exact=True).focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type("by keyboard")
    page.keyboard.press("Enter")
    eventually(lambda: [each.note for each in screen.pauses()] == ["by keyboard"])
    page.context.close()
