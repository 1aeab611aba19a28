"""Create the documentation's screenshots: `python tests/flower/screenshots.py docs/images`.

Flower and the browser are real, the ledger holds a generated scene.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))  # shared test code

import redis
from harasocial_dispatch.ledger import JobFilter
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.schemas import Settings
from PIL import Image
from PIL.Image import Dither
from playwright.sync_api import Browser, Page
from support.browser import open_browser
from support.flower_harness import PASSWORD, USER, Flower
from support.flower_scene import PAGE_RATE, RUNNING, WORKERS, Scene
from support.harness import environment, eventually

WIDTH = 1280


class Picture(NamedTuple):
    """A picture of a Flower page, up to `height` pixels. `prepare` acts on the page before it."""

    name: str
    path: str
    height: int
    prepare: Callable[[Page], None] = lambda page: None


def ask_for_replay(page: Page) -> None:
    """Click the button that shows what a replay would do."""
    page.get_by_role("button", name="Replay all").click()
    page.get_by_role("spinbutton").wait_for()


def take(browser: Browser, flower: Flower, picture: Picture, folder: Path) -> None:
    """Take one picture."""
    context = browser.new_context(
        base_url=flower.url,
        http_credentials={"username": USER, "password": PASSWORD},
        viewport={"width": WIDTH, "height": picture.height},
        timezone_id="Asia/Ho_Chi_Minh",
    )
    page = context.new_page()
    page.goto(picture.path)
    picture.prepare(page)
    # With a palette, a file has a third of the size.
    taken = Image.open(BytesIO(page.screenshot())).convert("RGB").quantize(dither=Dither.NONE)
    taken.save(folder / f"{picture.name}.png", optimize=True)
    context.close()


def main() -> None:
    """Create all screenshots in the given folder."""
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        valkey = stack.enter_context(EmbeddedValkey())
        settings = Settings(redis_url=valkey.url, page_rate=0.0)
        client = redis.Redis.from_url(valkey.url, decode_responses=True)
        scene = Scene(settings, client)
        scene.write()
        login = {"FLOWER_BASIC_AUTH": f"{USER}:{PASSWORD}", "PAGE_RATE": PAGE_RATE}
        env = environment(settings, "http://127.0.0.1:9", **login)
        flower = Flower(env, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        stack.callback(flower.stop)
        flower.start()
        eventually(lambda: client.pubsub_numpat() > 0, what="Flower's subscription to events")
        scene.start_workers()
        eventually(lambda: WORKERS[-1] in flower.get("/overview").text, what="the heartbeats")
        outage = JobFilter(error_codes=("http_503",))
        (job,) = scene.ledger.reader.find(outage, 1)
        browser = stack.enter_context(open_browser())
        for picture in (
            Picture("overview", "/overview", 1310),
            Picture("campaigns", "/campaigns", 520),
            Picture("campaign", f"/campaigns/{RUNNING.name}", 915),
            Picture("failures", "/failures", 1380),
            Picture("failure", f"/failures/{job.job_id}", 1045),
            Picture("replay", "/failures?error_code=http_503", 640, ask_for_replay),
        ):
            take(browser, flower, picture, folder)


if __name__ == "__main__":
    main()
