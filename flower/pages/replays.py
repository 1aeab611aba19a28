"""`/failures/replays`: replay jobs, after a count and a confirmation."""

from __future__ import annotations

import math
from collections import Counter

from tornado.web import HTTPError, authenticated

from ...producer.bulk_replay import Replay, group_causes, warnings_about
from ...schemas import State, from_ms
from ...schemas.error_codes import KIND_NAMES, ReplayKind
from ..replays import Stage, TrackedReplay
from .handler import PageHandler
from .job import MOVING

#: Default number of jobs per second: slow enough to stop a replay in time.
DEFAULT_RATE = 20
_MAX_RATE = 100_000
#: Maximum number of jobs that can be selected at once.
_MAX_SELECTED = 500
#: Maximum number of error codes that are explained on a replay's page.
_MAX_EXPLAINED = 20


class ReplaysHandler(PageHandler):
    """The list of replays. A POST plans a new one."""

    @authenticated
    async def get(self) -> None:
        replays = await self.ask(self.site.replays.all)
        self.render("failures_replays.html", replays=replays, stage=Stage)

    @authenticated
    async def post(self) -> None:
        self.forbid_if_read_only()
        if self.text_argument("what") == "filter":
            replay = await self._of_filter()
        else:
            replay = self._of_selection()
        self.site.replays.plan(replay)
        self.redirect(self.reverse_url("replay", replay.replay_id))

    def _of_selection(self) -> TrackedReplay:
        job_ids = list(dict.fromkeys(self.get_arguments("job_id")))
        if not job_ids:
            raise HTTPError(400, "No job was selected.")
        if len(job_ids) > _MAX_SELECTED:
            raise HTTPError(400, f"At most {_MAX_SELECTED} jobs can be selected at once.")
        replay = Replay(self.site.ledger, job_ids=job_ids, by=self.operator, via="flower")
        about = f"job {job_ids[0]}" if len(job_ids) == 1 else "selected failures"
        return TrackedReplay(about=about, replay=replay)

    async def _of_filter(self) -> TrackedReplay:
        wanted, kind = self.read_filter(), self._kind()
        now = from_ms(await self.ask(self.site.ledger.reader.now_ms))
        replay = Replay(
            self.site.ledger,
            wanted=wanted.as_of(now),
            text=wanted.text,
            kinds=() if kind is None else (kind,),
            by=self.operator,
            via="flower",
        )
        about = wanted.description()
        if kind is not None:
            about = f"{about} ({KIND_NAMES[kind]['en'].lower()})"
        return TrackedReplay(about=about, replay=replay)

    def _kind(self) -> ReplayKind | None:
        """Return the kind of failures in the form, or None."""
        text = self.text_argument("kind")
        try:
            return ReplayKind(text) if text else None
        except ValueError:
            kinds = ", ".join(kind.value for kind in ReplayKind)
            raise HTTPError(400, f"kind={text} is not a kind; use one of {kinds}.") from None


class ReplayHandler(PageHandler):
    """One replay. A POST starts or stops it."""

    @authenticated
    async def get(self, replay_id: str) -> None:
        replay = await self._replay(replay_id)
        before = (replay.stage, replay.replayed)
        statuses = await self.ask(self.site.ledger.reader.statuses, list(replay.latest_ids))
        became = Counter(status.state for status in statuses.values())
        # If the replay has progressed during the reads, the page is outdated and updated again.
        is_moving = (
            before != (replay.stage, replay.replayed)
            or replay.stage in (Stage.COUNTING, Stage.RUNNING)
            or not MOVING.isdisjoint(became)
        )
        self.render(
            "failures_replay.html",
            became={state: became[state] for state in State if became[state]},
            kinds=group_causes(replay.causes[:_MAX_EXPLAINED]),
            left_out=max(0, len(replay.causes) - _MAX_EXPLAINED),
            warnings=warnings_about(replay.causes, self.language),
            default_rate=DEFAULT_RATE,
            is_moving=is_moving,
            replay=replay,
            seconds_left=_seconds_left(replay),
            stage=Stage,
        )

    @authenticated
    async def post(self, replay_id: str) -> None:
        self.forbid_if_read_only()
        replay = await self._replay(replay_id)
        action = self.text_argument("action")
        if action == "start":
            done = await self.ask(self.site.replays.start, replay, self._rate())
        elif action == "stop":
            done = await self.ask(self.site.replays.stop, replay)
        else:
            raise HTTPError(400, f"action={action} is neither start nor stop.")
        if not done:
            raise HTTPError(
                409, f"This replay is {replay.stage.value}, so the action is not possible."
            )
        self.redirect(self.reverse_url("replay", replay_id))

    async def _replay(self, replay_id: str) -> TrackedReplay:
        replay = await self.ask(self.site.replays.get, replay_id)
        if replay is None:
            raise HTTPError(404, "No replay has this id. The latest 50 are kept for 7 days.")
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
            raise HTTPError(400, f"The rate must be a number above 0, up to {_MAX_RATE:,}.")
        return rate


def _seconds_left(replay: TrackedReplay) -> float | None:
    done = replay.replayed + replay.skipped
    if replay.stage is not Stage.RUNNING or not done:
        return None
    return max(0, replay.total - done) * replay.seconds_running / done
