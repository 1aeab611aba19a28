"""Create the README's screenshots: `python tests/flower/screenshots.py docs/images`.

A ledger is filled with a week of generated failures, the same ones each time. Flower and the
browser are real.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))  # shared test code

import redis
from harasocial_dispatch.broker.separate_celery import SeparateCelery
from harasocial_dispatch.ledger import JobFilter, Ledger
from harasocial_dispatch.ledger.job_hash import attempt_text, to_fields
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.schemas import Settings, parse_new_job
from harasocial_dispatch.worker.observe.job_event import JobEvent, events_of
from playwright.sync_api import Browser
from support.browser import open_browser
from support.flower_harness import PASSWORD, USER, Flower
from support.harness import body, environment, eventually

DAY_MS = 86_400_000
FAILURES = 2400


class Kind(NamedTuple):
    """A kind of failure, and its frequency."""

    error_code: str
    share: int
    message: str
    http_status: int | None = 200
    attempts: int = 1


KINDS = (
    Kind("10/2018278", 46, "This message is sent outside of allowed window."),
    Kind("551", 15, "This person isn't available right now."),
    Kind("190", 13, "Error validating access token: session has expired.", 401),
    Kind("http_503", 9, "the API answered with HTTP status 503", 503, 12),
    Kind("timeout", 7, "no reply in time; the message may have gone out", None, 12),
    Kind("expired", 6, "the deadline passed before the message was sent", None, 0),
    Kind("100/2018001", 4, "No matching user found."),
)
PAGES = [str(500_725_830_264_700 + n) for n in range(12)]


def fill(client: redis.Redis, prefix: str, chance: random.Random) -> list[str]:
    """Write a week of failures directly to the ledger's keys; return the IDs, the latest last."""
    now_ms = round(time.time() * 1000)
    ages_ms = [int(7 * DAY_MS * chance.random() ** 1.4) for _ in range(FAILURES * 3 // 4)]
    # An outage of the API in the evening.
    ages_ms += [2 * DAY_MS + int(chance.random() * 7_200_000) for _ in range(FAILURES // 4)]
    ids = []
    pipeline = client.pipeline(transaction=False)
    for number, age_ms in enumerate(sorted(ages_ms, reverse=True)):
        in_outage = 2 * DAY_MS <= age_ms < 2 * DAY_MS + 7_200_000
        kinds = [k for k in KINDS if k.http_status in (503, None)] if in_outage else KINDS
        kind = chance.choices(kinds, [k.share for k in kinds])[0]
        page_id = chance.choices(PAGES, [1 / (n + 1) for n in range(len(PAGES))])[0]
        ids.append(f"{chance.getrandbits(128):032x}")
        _put(pipeline, prefix, ids[-1], kind, page_id, now_ms - age_ms, number, chance)
    pipeline.execute()
    return ids


def _put(
    pipeline: Any,
    prefix: str,
    job_id: str,
    kind: Kind,
    page_id: str,
    failed_ms: int,
    number: int,
    chance: random.Random,
) -> None:
    payload_id = f"__hrf_f_{chance.getrandbits(96):024x}_s_{chance.getrandbits(128):032x}"
    recipient_id = str(2_560_816_460_000_000 + chance.randrange(10**9))
    new = parse_new_job(
        body(payload_id, page_id=page_id, recipient_id=recipient_id, metadata=f"order {number}")
    )
    flat = to_fields(new)
    fields = dict(zip(flat[::2], flat[1::2], strict=True)) | {
        "state": "failed",
        "page_id": page_id,
        "attempts": str(kind.attempts),
        "enqueued_at": str(failed_ms - 90_000 * kind.attempts - 1200),
        "expires_at": str(failed_ms + DAY_MS),
        "finished_at": str(failed_ms),
        "error_code": kind.error_code,
        "error_message": kind.message,
    }
    if kind.http_status is not None:
        fields["http_status"] = str(kind.http_status)
    for attempt in range(kind.attempts):
        at_ms = failed_ms - 90_000 * (kind.attempts - 1 - attempt) - 240
        fields[f"attempt:{attempt + 1}"] = attempt_text(
            at_ms, chance.randrange(90, 400), kind.http_status, kind.error_code, kind.message
        )
    pipeline.hset(f"{prefix}job:{job_id}", mapping=fields)
    for index in ("failed", f"failed:{kind.error_code}", f"failed_on:{page_id}"):
        pipeline.zadd(prefix + index, {job_id: failed_ms})
    pipeline.zadd(f"{prefix}failed_codes", {kind.error_code: failed_ms})
    pipeline.zadd(f"{prefix}failed_pages", {page_id: failed_ms})


def show(ledger: Ledger, job_ids: Sequence[str], settings: Settings) -> None:
    """Send Flower the events of failed jobs."""
    app = SeparateCelery("screenshots", settings)
    with app.connection_for_write() as connection:
        dispatcher = app.events.Dispatcher(connection, hostname="celery@send-1")
        for record in filter(None, map(ledger.reader.get, job_ids)):
            event = JobEvent(
                job_id=record.job_id,
                state=record.state,
                at_seconds=time.time(),
                body=record.job,
                error_code=record.error_code,
                error_message=record.error_message,
                attempts=record.attempts,
            )
            for kind, fields in events_of(event):
                dispatcher.send(kind, **fields)


def take(browser: Browser, flower: Flower, job_id: str, folder: Path) -> None:
    """Take the screenshots."""
    scheme: Literal["light", "dark"]
    for name, path, scheme, height in (
        ("failures", "/failures", "light", 1400),
        ("failures-dark", "/failures", "dark", 1400),
        ("failure", f"/failures/{job_id}", "light", 1000),
        ("tasks", "/tasks", "light", 720),
    ):
        context = browser.new_context(
            base_url=flower.url,
            color_scheme=scheme,
            http_credentials={"username": USER, "password": PASSWORD},
            viewport={"width": 1280, "height": height},
            timezone_id="Asia/Ho_Chi_Minh",
        )
        page = context.new_page()
        page.goto(path)
        if name == "tasks":
            page.get_by_role("searchbox").fill("result:2018278")
            page.locator("#tasks-table tbody a").first.wait_for()
        page.screenshot(path=folder / f"{name}.png")
        if name == "failures":
            page.goto("/failures?error_code=http_503")
            page.get_by_role("button", name="Replay all").click()
            page.get_by_role("spinbutton").wait_for()
            page.set_viewport_size({"width": 1280, "height": 600})
            page.screenshot(path=folder / "replay.png")
        context.close()


def main() -> None:
    """Create all screenshots in the given folder."""
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        valkey = stack.enter_context(EmbeddedValkey())
        settings = Settings(redis_url=valkey.url, page_rate=0.0)
        client = redis.Redis.from_url(valkey.url, decode_responses=True)
        ids = fill(client, f"{{{settings.namespace}}}:", random.Random(1001))
        env = environment(settings, "http://127.0.0.1:9", FLOWER_BASIC_AUTH=f"{USER}:{PASSWORD}")
        flower = Flower(env, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        stack.callback(flower.stop)
        flower.start()
        eventually(lambda: client.pubsub_numpat() > 0, what="Flower's ear for events")
        ledger = Ledger(settings)
        show(ledger, ids[-60:], settings)
        eventually(lambda: ids[-1] in flower.get("/api/tasks").text, what="the events")
        (latest,) = ledger.reader.find(JobFilter(error_codes=("http_503",)), 1)
        take(stack.enter_context(open_browser()), flower, latest.job_id, folder)


if __name__ == "__main__":
    main()
