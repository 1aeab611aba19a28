"""The scene of the documentation's screenshots: a week of generated messages and five campaigns.

Waiting jobs, pauses and rates go through the ledger. The past is written directly to its keys,
because the ledger uses the server's clock.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

import redis
from harasocial_dispatch.broker.separate_celery import SeparateCelery
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.ledger.job_hash import attempt_text, to_fields
from harasocial_dispatch.schemas import LaneVerdict, NewJob, Settings, State, parse_new_job

from .flower_harness import claim_job, fail_job
from .harness import body
from .results import make_result

PAGE_RATE = 10
PAGES = [str(500_725_830_264_700 + n) for n in range(12)]
OPERATOR = "linh@shop"
WORKERS = ("send-1", "send-2", "send-3")

MINUTE_MS, DAY_MS = 60_000, 86_400_000
#: Single messages: failures in a week, a part of them in an outage; messages sent in a day.
FAILURES, FAILURES_IN_OUTAGE, SENT_IN_A_DAY = 2200, 600, 36_000


class Kind(NamedTuple):
    """A kind of failure, and its frequency."""

    error_code: str
    share: int
    message: str
    http_status: int | None = 200
    attempts: int = 1


REFUSALS = (
    Kind("10/2018278", 46, "This message is sent outside of allowed window."),
    Kind("551", 15, "This person isn't available right now."),
    Kind("100/2018001", 4, "No matching user found."),
)
OUTAGE = (
    Kind("http_503", 9, "the API replied with HTTP status 503", 503, 12),
    Kind("timeout", 7, "no reply in time; the message may have gone out", None, 12),
    Kind("expired", 6, "the deadline passed before the message was sent", None, 0),
)
OTHERS = (Kind("190", 13, "Error validating access token: session has expired.", 401),)


class PastCampaign(NamedTuple):
    """A campaign that began and ended some minutes ago, and its rows by state."""

    name: str
    page_ids: Sequence[str]
    began: int
    ended: int
    sent: int
    failed: int
    waiting: int = 0
    canceled: int = 0


RUNNING = PastCampaign("flash-sale", PAGES[:3], 12, 0, 14_391, 249, waiting=5_400)
HELD = PastCampaign("new-collection", PAGES[3:5], 36, 31, 1_204, 21, waiting=3_600)
CANARY = PastCampaign("vip-preview", PAGES[6:7], 22, 21, 197, 3, waiting=1_800)
CANCELED = PastCampaign("october-vouchers", PAGES[2:4], 1520, 1510, 310, 42, canceled=4_690)
FINISHED = PastCampaign("weekend-offer", PAGES[:6], 4400, 4350, 22_418, 517)
CAMPAIGNS = (FINISHED, CANCELED, CANARY, HELD, RUNNING)


class Scene:
    """Writes the scene to an empty ledger."""

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        self.ledger = Ledger(settings)
        self._app = SeparateCelery("screenshots", settings)
        self._client = client
        self._pipeline = client.pipeline(transaction=False)
        self._prefix = f"{{{settings.namespace}}}:"
        self._random = random.Random(1001)
        self._now_ms = self.ledger.reader.now_ms()

    def write(self) -> None:
        """Write everything except the workers."""
        self._write_automatic_pause()
        self._write_waiting()
        self._write_operations()
        for campaign in CAMPAIGNS:
            self._write_past(campaign)
        self._write_single_messages()
        self._pipeline.execute()

    def start_workers(self) -> None:
        """Send the heartbeats of three workers to Flower, and write the time of their sweep."""
        self._client.set(f"{self._prefix}clock", self.ledger.reader.now_ms())
        with self._app.connection_for_write() as connection:
            for host in WORKERS:
                dispatcher = self._app.events.Dispatcher(connection, hostname=f"celery@{host}")
                dispatcher.send("worker-heartbeat", freq=2)

    # The present.

    def _write_automatic_pause(self) -> None:
        """Record a restriction of one page, and jobs of another that wait for a retry."""
        (job_id,) = self.ledger.enqueue([self._new_job(PAGES[8])]).job_ids
        pause = LaneVerdict(effect="pause", reason="restricted", pause_seconds=3000)
        result = make_result(
            claim_job(self.ledger, job_id),
            State.RETRYING,
            "368",
            delay_seconds=3000,
            lane=pause,
            error_message="The action attempted has been deemed abusive or is otherwise disallowed",
        )
        self.ledger.record([result])
        for _ in range(14):
            fail_job(self.ledger, page_id=PAGES[9], error_code="http_503", state=State.RETRYING)

    def _write_waiting(self) -> None:
        for campaign in CAMPAIGNS:
            self._enqueue(campaign.waiting, campaign.page_ids, campaign=campaign.name)
        self._enqueue(480, PAGES[5:9])
        tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
        self._enqueue(160, PAGES[:5], send_at=tomorrow.isoformat())

    def _enqueue(self, count: int, page_ids: Sequence[str], **options: Any) -> None:
        pages = self._random.choices(page_ids, k=count)
        self.ledger.enqueue([self._new_job(page_id, **options) for page_id in pages])

    def _write_operations(self) -> None:
        self.ledger.pause_page(
            PAGES[5], reason="wrong price in the catalog", by=OPERATOR, for_seconds=7200
        )
        self.ledger.set_rate(PAGES[1], 8, by=OPERATOR)
        self.ledger.hold_campaign(HELD.name, "wrong picture", by=OPERATOR)
        self.ledger.announce_campaign(CANARY.name, canary=0)
        self.ledger.claim(12)

    # The past.

    def _write_past(self, campaign: PastCampaign) -> None:
        began_ms = self._now_ms - campaign.began * MINUTE_MS
        ended_ms = self._now_ms - campaign.ended * MINUTE_MS
        totals = {"created_at": began_ms - MINUTE_MS, "started_at": began_ms, "ended_at": ended_ms}
        self._hset(f"campaign:{campaign.name}", totals)
        for state, count in (
            (State.SENT, campaign.sent),
            (State.FAILED, campaign.failed),
            (State.CANCELLED, campaign.canceled),
        ):
            if count == 0:
                continue
            pages = self._random.choices(campaign.page_ids, k=count)
            self._hset(f"campaign:{campaign.name}", {state.value: count})
            by_page = {f"{page_id}|{state.value}": n for page_id, n in Counter(pages).items()}
            self._hset(f"campaign_pages:{campaign.name}", by_page)
            times_ms = [self._random.randint(began_ms, ended_ms) for _ in pages]
            if state is State.FAILED:
                kinds = self._choose(REFUSALS, count)
                self._write_failures(kinds, pages, times_ms, campaign.name)
                codes = Counter(kind.error_code for kind in kinds)
                self._hset(f"campaign_errors:{campaign.name}", codes)
            elif state is State.SENT:
                self._write_sent(times_ms)
        if campaign.canceled:
            self._hset("canceled_campaigns", {campaign.name: "{}"})
        if campaign.ended == 0:
            # At the rates of its pages. The rate is measured over 20 to 30 seconds.
            periods = {self._now_ms // 10_000 - n: 280 for n in range(3)}
            self._hset(f"campaign_rate:{campaign.name}", periods)
        self._pipeline.zadd(f"{self._prefix}campaigns", {campaign.name: ended_ms})

    def _write_single_messages(self) -> None:
        ages_ms = [int(7 * DAY_MS * self._random.random() ** 1.4) for _ in range(FAILURES)]
        kinds = self._choose((*REFUSALS, *OTHERS), FAILURES - FAILURES_IN_OUTAGE)
        kinds += self._choose(OUTAGE, FAILURES_IN_OUTAGE)
        for i in range(FAILURES - FAILURES_IN_OUTAGE, FAILURES):
            ages_ms[i] = 2 * DAY_MS + int(self._random.random() * 7_200_000)
        times_ms = [self._now_ms - age_ms for age_ms in ages_ms]
        pages = self._random.choices(PAGES, [1 / (n + 1) for n in range(len(PAGES))], k=FAILURES)
        self._write_failures(kinds, pages, times_ms)
        self._write_sent(
            [self._now_ms - self._random.randrange(DAY_MS) for _ in range(SENT_IN_A_DAY)]
        )

    def _choose(self, kinds: Sequence[Kind], count: int) -> list[Kind]:
        return self._random.choices(kinds, [kind.share for kind in kinds], k=count)

    def _write_sent(self, times_ms: Sequence[int]) -> None:
        """Count sent messages. Their jobs are not written: no picture shows them."""
        self._count_minutes(State.SENT, times_ms)
        recent = [ms for ms in times_ms if ms > self._now_ms - DAY_MS]
        ids = [f"{self._random.getrandbits(128):032x}" for _ in recent]
        if ids:
            self._pipeline.rpush(f"{self._prefix}sent", *ids)

    def _count_minutes(self, state: State, times_ms: Sequence[int]) -> None:
        for minute, count in Counter(ms // MINUTE_MS for ms in times_ms).items():
            if minute > self._now_ms // MINUTE_MS - 60:
                self._pipeline.hincrby(f"{self._prefix}minute:{minute}", state.value, count)

    def _write_failures(
        self,
        kinds: Sequence[Kind],
        pages: Sequence[str],
        times_ms: Sequence[int],
        campaign: str | None = None,
    ) -> None:
        self._count_minutes(State.FAILED, times_ms)
        for kind, page_id, failed_ms in zip(kinds, pages, times_ms, strict=True):
            self._write_failure(kind, page_id, failed_ms, campaign)

    def _write_failure(
        self, kind: Kind, page_id: str, failed_ms: int, campaign: str | None
    ) -> None:
        job_id = f"{self._random.getrandbits(128):032x}"
        options = {"campaign": campaign} if campaign else {}
        flat = to_fields(self._new_job(page_id, **options))
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
            duration_ms = self._random.randrange(90, 400)
            fields[f"attempt:{attempt + 1}"] = attempt_text(
                at_ms, duration_ms, kind.http_status, kind.error_code, kind.message
            )
        self._hset(f"job:{job_id}", fields)
        indexes = {"failed:": kind.error_code, "failed_on:": page_id, "failed_of:": campaign}
        for index in ("failed", *(prefix + name for prefix, name in indexes.items() if name)):
            self._pipeline.zadd(self._prefix + index, {job_id: failed_ms})
        names = {"codes": kind.error_code, "pages": page_id, "campaigns": campaign}
        for plural, name in names.items():
            if name:
                self._pipeline.zadd(f"{self._prefix}failed_{plural}", {name: failed_ms}, gt=True)

    def _hset(self, name: str, fields: Any) -> None:
        self._pipeline.hset(self._prefix + name, mapping=fields)

    def _new_job(self, page_id: str, **options: Any) -> NewJob:
        bits = self._random.getrandbits
        return parse_new_job(
            body(
                f"__hrf_f_{bits(96):024x}_s_{bits(128):032x}",
                page_id=page_id,
                recipient_id=str(2_560_816_460_000_000 + self._random.randrange(10**9)),
                metadata=f"order {self._random.randrange(10_000, 99_999)}",
            ),
            options,
        )
