"""`/failures/replays`: sending many jobs again; asked for, counted, agreed to, and watched."""

from __future__ import annotations

import math
from dataclasses import replace

from tornado.web import HTTPError, authenticated

from ...schemas import from_ms
from ...schemas.explanations import explain
from .job_page import MOVING
from .page import Page
from .replays import Replay, Stage

#: Jobs a second, where the form is not changed: a pace at which one can still step in.
DEFAULT_RATE = 20
_MAX_RATE = 100_000
#: Jobs that can be selected at once: those of one page, and some to spare.
_MAX_SELECTED = 500
#: Error codes of a replay that are explained on its page.
_MAX_EXPLAINED = 5


class ReplaysPage(Page):
    """The replays of this process; a POST asks for another."""

    @authenticated
    async def get(self) -> None:
        self.render("failures_replays.html", replays=self.site.replays.all(), stage=Stage)

    @authenticated
    async def post(self) -> None:
        self.forbid_if_read_only()
        if self.text_argument("what") == "filter":
            replay = await self._of_filter()
        else:
            replay = self._of_selection()
        self.site.replays.plan(replay)
        self.redirect(self.reverse_url("replay", replay.replay_id))

    def _of_selection(self) -> Replay:
        job_ids = list(dict.fromkeys(self.get_arguments("job_id")))
        if not job_ids:
            raise HTTPError(400, "No job was selected.")
        if len(job_ids) > _MAX_SELECTED:
            raise HTTPError(400, f"At most {_MAX_SELECTED} jobs can be selected at once.")
        return Replay(about="selected failures", job_ids=job_ids)

    async def _of_filter(self) -> Replay:
        wanted = self.read_filter()
        now = from_ms(await self.ask(self.site.ledger.failures.now_ms))
        bounded = wanted.as_of(now)
        until = min(bounded.until or now, now)
        if bounded.since is not None:
            # A filter that starts in the future matches nothing; its range must still be valid.
            until = max(until, bounded.since)
        return Replay(
            about=wanted.in_words(), text=wanted.text, wanted=replace(bounded, until=until)
        )


class ReplayPage(Page):
    """One replay; a POST starts it or calls it off."""

    @authenticated
    async def get(self, replay_id: str) -> None:
        replay = self._replay(replay_id)
        failures = self.site.ledger.failures
        before = (replay.stage, replay.replayed)
        became = await self.ask(failures.states, list(replay.latest_ids))
        # What it did while that was read is not told yet, so the page looks again.
        is_moving = (
            before != (replay.stage, replay.replayed)
            or replay.stage in (Stage.COUNTING, Stage.RUNNING)
            or not MOVING.isdisjoint(became)
        )
        codes: dict[str, int] = {}
        sample = None
        if replay.stage is Stage.READY and replay.job_ids is not None:
            codes = await self.ask(failures.error_codes, list(replay.job_ids))
        elif replay.stage is Stage.READY and not replay.text:
            counts = await self.ask(failures.by_error_code, replay.wanted)
            codes, sample = counts.by_name, counts.sample
        self.render(
            "failures_replay.html",
            became=became,
            codes=[
                (code, count, explain(code)) for code, count in list(codes.items())[:_MAX_EXPLAINED]
            ],
            default_rate=DEFAULT_RATE,
            is_moving=is_moving,
            replay=replay,
            sample=sample,
            seconds_left=_seconds_left(replay),
            stage=Stage,
        )

    @authenticated
    async def post(self, replay_id: str) -> None:
        self.forbid_if_read_only()
        replay = self._replay(replay_id)
        action = self.text_argument("action")
        if action == "start":
            done = self.site.replays.start(replay, self._rate())
        elif action == "cancel":
            done = self.site.replays.cancel(replay)
        else:
            raise HTTPError(400, f"action={action} is neither start nor cancel.")
        if not done:
            raise HTTPError(409, f"This replay is {replay.stage.value}; that cannot be done now.")
        self.redirect(self.reverse_url("replay", replay_id))

    def _replay(self, replay_id: str) -> Replay:
        replay = self.site.replays.get(replay_id)
        if replay is None:
            raise HTTPError(
                404,
                "This replay is not known: Flower was restarted since. What it replayed is in "
                "the jobs; those it had not reached are failed still.",
            )
        return replay

    def _rate(self) -> float | None:
        text = self.text_argument("rate").strip()
        if not text:
            return None
        try:
            rate = float(text)
        except ValueError:
            rate = math.nan
        if not 0 < rate <= _MAX_RATE:
            raise HTTPError(400, f"The pace must be a number above 0, up to {_MAX_RATE:,}.")
        return rate


def _seconds_left(replay: Replay) -> float | None:
    done = replay.replayed + replay.skipped
    if replay.stage is not Stage.RUNNING or not done:
        return None
    return max(0, replay.total - done) * replay.seconds_running / done
