"""Every job's state, in Redis: the one truth about which jobs exist and where they stand.

Each method is one script call, so each happens whole or not at all, whoever dies meanwhile.
"""

from __future__ import annotations

import json
import logging
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import redis

from ..schemas import (
    START_WITHIN_SECONDS,
    CampaignCanceled,
    CampaignNotFound,
    NewJob,
    Settings,
    SettingsError,
    State,
    check_by,
    check_page_id,
    check_pause_seconds,
    check_rate,
    check_reason,
    sanitize,
)
from .audit import AuditEntry, Via, local_user
from .bulk_cancel import CanceledJobs, cancel_matching
from .claim import Claim, to_claim
from .connection import connect, translated_errors
from .exchange import (
    Claimed,
    Enqueued,
    PageChange,
    Result,
    Swept,
    result_row,
    to_page_change,
)
from .reading import ALL_PAGES, JobFilter, Reader
from .reading.namespace import Namespace, chunks
from .replay_store import ReplayStore
from .scripts import Scripts, explain_version
from .storing import store

#: Failures in a row that pause a page's lane: its breaker.
FAILURES_IN_A_ROW = 5
#: Jobs or lanes that one step of a release or a cancel looks at: about 3 ms of the server's time.
CHUNK = 200
#: What one sweep moves, at most, of each kind.
SWEEP_LIMIT = 500
#: Pages whose tokens are stored by one call.
_TOKENS = 1000
#: Characters of a sentence on a repair: it quotes a key's name, which may be of any length.
_REPAIR_CHARACTERS = 300
#: Keys of the database that one sweep looks at while lost indexes are rebuilt: about 3 ms of the
#: server's time.
_REBUILD_KEYS = 500

logger = logging.getLogger(__name__)


class Lifted(str, Enum):
    """What `resume_page` did."""

    #: The page was not paused.
    NOTHING = "nothing"
    #: The page's pause by an operator has ended. An automatic pause may still hold.
    MANUAL = "manual"
    #: The page's automatic pause sends its probe at once.
    AUTOMATIC = "automatic"

    def __str__(self) -> str:
        return self.value


class Ledger:
    """The jobs of one namespace. Safe to share between threads; each process makes its own.

    A key of the namespace that another client replaced by one of another type is moved to
    `broken:<name>`, and what can be rebuilt from the jobs is rebuilt: see lua/transitions.lua.

    Args:
        settings: `redis_url`, `namespace` and the times are used.
        timeout_seconds: for connecting, and for each answer.
        ring: called when a doorbell must wake a worker; must not raise. A ledger that is only
            read needs none.
        on_page_change: called when a page is paused by an outcome, probed, or resumed; must not
            raise.
        client: instead of a connection made from the settings, for tests.

    Every method raises `QueueUnavailable` when Redis does not do what was asked.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        timeout_seconds: float = 5.0,
        ring: Callable[[], object] = lambda: None,
        on_page_change: Callable[[PageChange], object] = lambda _: None,
        client: redis.Redis | None = None,
    ) -> None:
        self._settings = settings
        self._client = client or connect(
            settings.redis_url, timeout_seconds=timeout_seconds, max_connections=1024
        )
        prefix = f"{{{settings.namespace}}}:"
        self._prefix = prefix
        constants = {
            "CAMPAIGN_TTL_S": round(settings.campaign_ttl_seconds),
            "CANCELED_TTL_S": round(settings.failed_ttl_seconds),
        }
        self._scripts = Scripts(self._client, prefix, ring, constants)
        self._on_page_change = on_page_change
        # The claims' owner: a claim token is "holder:number".
        self._holder = uuid.uuid4().hex
        self._claim_number = 0
        # The token of the latest claim if its reply was lost, until its jobs are released.
        self._lost_claim: str | None = None
        self._namespace = Namespace(self._client, prefix, settings.redis_url, self._scripts)
        #: Everything that changes no job.
        self.reader = Reader(self._namespace, settings.page_rate)
        self.replay_store = ReplayStore(self._namespace)

    def check_version(self) -> None:
        """Raise `SettingsError` if the namespace's keys are of another version of this program.

        Every script checks the same, and then does nothing; this is for those who start.
        """
        with translated_errors(self._settings.redis_url):
            problem = explain_version(self._client, self._prefix)
        if problem:
            raise SettingsError(problem)

    def enqueue(self, jobs: Sequence[NewJob], *, skip_conflicts: bool = False) -> Enqueued:
        """Store jobs: all or none, but for those in conflict (design promises 1 to 3).

        A job is in conflict if its idempotency key belongs to a job with another body.

        Args:
            jobs: validated.
            skip_conflicts: leave out jobs in conflict and report them, instead of raising.

        Raises:
            IdempotencyConflict: of the first job in conflict; nothing was stored.
            QueueUnavailable: nothing was stored.
            EnqueueUnknown: the reply was lost; the jobs may be stored.
        """
        return store(jobs, self._scripts, self._settings, skip_conflicts=skip_conflicts)

    @property
    def claim_was_lost(self) -> bool:
        """Whether the reply to the latest claim was lost, and nothing was released yet."""
        return self._lost_claim is not None

    def claim(
        self,
        max_jobs: int,
        *,
        in_flight_by_page: Mapping[str, int] | None = None,
        answers_bell: bool = False,
        looks_again_in_seconds: float = 0.0,
        has_possible_poison: bool = False,
        default_token: str = "",
    ) -> Claimed:
        """Claim at most `max_jobs` jobs that may be sent now, for `lease_seconds`.

        Args:
            max_jobs: at least 1.
            in_flight_by_page: calls under way in this process.
            answers_bell: this is the first call after a doorbell.
            looks_again_in_seconds: the caller promises to claim again within this time, so that
                nobody rings for what comes meanwhile; 0 when it may stop.
            has_possible_poison: a claim with `possible_poison` is in flight; there will be no
                second one.
            default_token: fingerprint of the token of pages that have none of their own.

        Not to be called by two threads at once, nor beside `sweep`. When its reply is lost, the
        next call first releases what may have been claimed.
        """
        self._release_lost_claim()
        settings = self._settings
        token = self._next_token()
        # Before asking: the lease, by the server's clock, cannot have begun earlier.
        asked_at = time.monotonic()
        self._lost_claim = token
        with translated_errors(settings.redis_url):
            wait_ms, now_ms, changes, *rows = self._scripts.and_ring(
                "claim",
                token,
                max_jobs,
                round(settings.lease_seconds * 1000),
                repr(settings.page_rate),
                settings.page_burst,
                round(settings.safe_call_deadline_seconds * 1000),
                json.dumps(in_flight_by_page or {}),
                int(answers_bell),
                round(looks_again_in_seconds * 1000),
                int(has_possible_poison),
                round(START_WITHIN_SECONDS * 1000),
                default_token,
                repr(settings.token_rate),
                settings.token_burst,
            )
        self._lost_claim = None
        self._report(changes)
        return Claimed(
            claims=_to_claims(rows, token, now_ms, asked_at),
            wait_seconds=None if wait_ms < 0 else wait_ms / 1000,
        )

    def _next_token(self) -> str:
        self._claim_number += 1
        return f"{self._holder}:{self._claim_number}"

    def _release_lost_claim(self) -> None:
        if self._lost_claim is None:
            return
        with translated_errors(self._settings.redis_url):
            self._scripts("release", self._lost_claim, round(self._settings.lease_seconds * 1000))
        self._lost_claim = None

    def wait_for_jobs(self, seconds: float) -> None:
        """Wait until jobs are ready for a pump that promised to look, at most for so long.

        Another pump may take them first.
        """
        timeout_seconds = self._client.connection_pool.connection_kwargs.get("socket_timeout")
        if timeout_seconds is not None:
            # With more, a server that does not answer could not be told from one with no jobs.
            seconds = min(seconds, timeout_seconds / 2)
        with translated_errors(self._settings.redis_url):
            try:
                self._client.blpop([f"{self._prefix}wake"], timeout=seconds)
            except redis.ResponseError as error:
                # Of another type, which the next script repairs; or a server without fractions of
                # seconds. The caller looks by itself.
                logger.debug("cannot wait for jobs: %s", error)

    def leave(self) -> None:
        """Note that this pump stops looking, and ring for what is ready."""
        with translated_errors(self._settings.redis_url):
            self._scripts.and_ring("leave")

    def record(self, results: Sequence[Result]) -> list[bool]:
        """Record outcomes; for each, whether its claim still held (design promise 6)."""
        with translated_errors(self._settings.redis_url):
            changes, *held = self._scripts(
                "record",
                round(self._settings.sent_ttl_seconds),
                FAILURES_IN_A_ROW,
                *map(result_row, results),
            )
        self._report(changes)
        return [answer == 1 for answer in held]

    def _report(self, changes: Sequence[Sequence[Any]]) -> None:
        for row in changes:
            self._on_page_change(to_page_change(row))

    def sweep(self, *, end_leases: bool = True) -> Swept:
        """Move on what is due, claim what must be ended, forget what is past its retention.

        The claims of the answer, whose lease ended or which have a defect, are never sent: the
        caller records how they end. If it dies first, another sweep claims them after
        `lease_seconds`.

        While an index is rebuilt from the jobs, each sweep also does a part of that.
        """
        settings = self._settings
        token = self._next_token()
        asked_at = time.monotonic()
        with translated_errors(settings.redis_url):
            oldest_ms, made_ready, more, rebuild, repairs, now_ms, *rows = self._scripts.and_ring(
                "sweep",
                SWEEP_LIMIT,
                int(end_leases),
                token,
                round(settings.lease_seconds * 1000),
                random.getrandbits(31),
                round(settings.failed_ttl_seconds * 1000),
            )
            if rebuild == 1:
                (rebuild,) = self._scripts(
                    "rebuild",
                    _REBUILD_KEYS,
                    round(settings.lease_seconds * 1000),
                    round(settings.retry_max_seconds * 1000),
                )
        return Swept(
            made_ready=made_ready,
            more=1 in (more, rebuild),
            oldest_due_seconds=int(oldest_ms) / 1000,
            claims=_to_claims(rows, token, now_ms, asked_at),
            repairs=[sanitize(text, _REPAIR_CHARACTERS) for text in repairs],
        )

    def write_page_tokens(self, fingerprints: Mapping[str, str]) -> None:
        """Store which token each page has (page_id → fingerprint) that has one of its own."""
        stored: list[str] = self._namespace.client.hkeys(self._namespace.key("page_tokens"))
        gone = set(stored) - set(fingerprints)
        with translated_errors(self._settings.redis_url):
            for some in chunks(fingerprints, _TOKENS):
                pairs = (text for page_id in some for text in (page_id, fingerprints[page_id]))
                self._scripts("page_tokens", *pairs)
            for some in chunks(gone, _TOKENS):
                self._scripts("page_tokens", *(text for page_id in some for text in (page_id, "")))

    def resume(self, refused: Mapping[str, str]) -> None:
        """End the pauses of pages (page_id → fingerprint of the token that was refused)."""
        pairs = [text for pair in refused.items() for text in pair]
        with translated_errors(self._settings.redis_url):
            (changes,) = self._scripts.and_ring("resume", *pairs)
        self._report(changes)

    def cancel(self, job_ids: Sequence[str], audit: AuditEntry | None = None) -> list[State | None]:
        """Cancel jobs not yet sent; returns each one's state afterwards, None if unknown.

        The script that cancels them adds their number to the entry `audit`.
        """
        audit = audit or AuditEntry(action="cancel")
        with translated_errors(self._settings.redis_url):
            _, *states = self._scripts(
                "cancel",
                *_audit_args(audit),
                *job_ids,
            )
        return [_state(text) for text in states]

    def cancel_matching(
        self,
        wanted: JobFilter,
        *,
        payload_ids: Sequence[str] = (),
        audit: AuditEntry | None = None,
        dry_run: bool = False,
    ) -> Iterator[list[CanceledJobs]]:
        """Cancel the waiting jobs that fit a filter, and yield what each step canceled.

        A step takes a few milliseconds of Redis' time. To stop, end the iteration; a later call
        cancels the others. Calls in flight end normally: such jobs are yielded with the state
        SENDING. A job that such a call returns to the queue may be missed; a second call finds it.
        The script that cancels jobs adds their number to the entry `audit`.

        Args:
            wanted: `since` and `until` bound when a job was enqueued.
            payload_ids: only jobs with one of these payloads; none is no condition.
            dry_run: cancel nothing; yield what would be canceled.
        """
        audit = None if dry_run else audit or AuditEntry(action="cancel")
        return cancel_matching(self._namespace, wanted, payload_ids, audit)

    def replay(self, job_ids: Sequence[str], audit: AuditEntry | None = None) -> list[State | None]:
        """Queue failed jobs again; returns each one's state before, None if unknown.

        The script that queues them adds their number to the entry `audit`, and keeps in each job by
        whom it was replayed.
        """
        audit = audit or AuditEntry(action="replay")
        with translated_errors(self._settings.redis_url):
            states = self._scripts.and_ring(
                "replay",
                round(self._settings.expires_seconds * 1000),
                *_audit_args(audit),
                *job_ids,
            )
        return [_state(text) for text in states]

    def write_audit(self, audit: AuditEntry, count: int = 1) -> None:
        """Record an operation that changed `count` jobs or pages without a script of its own."""
        with translated_errors(self._settings.redis_url):
            self._scripts("write_audit", *_audit_args(audit), count)

    # What an operator sets. Arguments are checked before anything is stored; a wrong one raises
    # `InvalidRequest`.

    def pause_page(
        self,
        page_id: str,
        *,
        by: str,
        via: Via = "python",
        reason: str = "",
        for_seconds: float | None = None,
    ) -> int:
        """Pause a page; returns how many jobs wait in its lane. Calls in flight end normally.

        Args:
            page_id: may have no jobs yet.
            by: who pauses it, such as `user@host`.
            via: what that is done with, for the audit.
            reason: shown to people; may be empty.
            for_seconds: how long; None for until it is resumed.
        """
        page_id = check_page_id(page_id)
        self._pause(page_id, by=by, via=via, reason=reason, for_seconds=for_seconds)
        return self.reader.count_waiting([page_id])[page_id]

    def pause_all(
        self,
        *,
        by: str,
        via: Via = "python",
        reason: str = "",
        for_seconds: float | None = None,
    ) -> None:
        """Pause every page, as `pause_page` does, in addition to pauses of single pages."""
        self._pause(ALL_PAGES, by=by, via=via, reason=reason, for_seconds=for_seconds)

    def _pause(
        self, page_id: str, *, by: str, via: Via, reason: str, for_seconds: float | None
    ) -> None:
        note = json.dumps({"reason": check_reason(reason), "by": check_by(by)})
        for_seconds = check_pause_seconds(for_seconds)
        details = {"for_seconds": for_seconds} if for_seconds else {}
        audit = _operation("pause", by, via, page_id=page_id, reason=reason, details=details)
        target = ("pause_all",) if page_id == ALL_PAGES else ("pause_page", page_id)
        with translated_errors(self._settings.redis_url):
            self._scripts(*target, note, round((for_seconds or 0) * 1000), *_audit_args(audit))

    def resume_page(self, page_id: str, *, by: str | None = None, via: Via = "python") -> Lifted:
        """End a page's pause by an operator; without one, send its automatic pause's probe now.

        `by` (`user@host` of this process by default) and `via` are for the audit.
        """
        page_id = check_page_id(page_id)
        audit = _operation("resume", by, via, page_id=page_id)
        with translated_errors(self._settings.redis_url):
            (lifted,) = self._scripts.and_ring("resume_page", page_id, *_audit_args(audit))
        return Lifted(lifted)

    def resume_all(self, *, by: str | None = None, via: Via = "python") -> bool:
        """End the pause of all pages; returns whether there was one.

        Pages that are paused for themselves stay paused. `by` and `via` as for `resume_page`.
        """
        audit = _operation("resume", by, via, page_id=ALL_PAGES)
        with translated_errors(self._settings.redis_url):
            (was_paused,) = self._scripts.and_ring("resume_all", *_audit_args(audit))
        return bool(was_paused)

    def set_rate(
        self,
        page_id: str,
        rate: float,
        burst: int | None = None,
        *,
        by: str,
        via: Via = "python",
    ) -> None:
        """Give a page a rate of its own, which every worker obeys from its next claim on.

        Args:
            rate: messages a second; 0 for no limit.
            burst: messages at once; None for the setting `page_burst`.
            by: who sets it, such as `user@host`.
            via: what that is done with, for the audit.
        """
        page_id = check_page_id(page_id)
        rate, burst = check_rate(rate, self._settings.page_burst if burst is None else burst)
        text = json.dumps({"rate": rate, "burst": burst, "by": check_by(by)})
        audit = _operation("rate", by, via, page_id=page_id, details={"rate": rate, "burst": burst})
        with translated_errors(self._settings.redis_url):
            self._scripts.and_ring("set_rate", page_id, text, *_audit_args(audit))

    def clear_rate(self, page_id: str, *, by: str | None = None, via: Via = "python") -> bool:
        """Give a page the default rate again; returns whether it had one of its own.

        `by` and `via` as for `resume_page`.
        """
        page_id = check_page_id(page_id)
        audit = _operation("rate", by, via, page_id=page_id, details={"rate": "default"})
        with translated_errors(self._settings.redis_url):
            (had_one,) = self._scripts.and_ring("set_rate", page_id, "", *_audit_args(audit))
        return bool(had_one)

    def announce_campaign(
        self,
        name: str,
        *,
        rows: int | None = None,
        canary: int | None = None,
        canary_max_failures: float | None = None,
        hold_at: float | None = None,
        by: str = "",
    ) -> None:
        """Note how many rows a campaign will have and what holds it, before they are enqueued.

        Args:
            rows: it is not finished before so many jobs have ended; None leaves that as it is.
            canary: jobs to send before the others wait for a release. Ignored once it has begun.
            canary_max_failures: share (0 to 1) of the canary that may fail: then it is released by
                itself, and else held. None: a person releases it.
            hold_at: share (0 to 1) of failures among the latest 500 ended jobs that holds it.
            by: who does this.

        Raises:
            CampaignCanceled: it was canceled.
        """
        rules = {
            "canary": canary,
            "canary_max_failures": canary_max_failures,
            "hold_at": hold_at,
        }
        given = {rule: value for rule, value in rules.items() if value is not None}
        with translated_errors(self._settings.redis_url):
            (state,) = self._scripts(
                "announce_campaign",
                name,
                "" if rows is None else rows,
                "" if canary is None else canary,
                json.dumps(given) if given else "",
                by,
            )
        if state == "canceled":
            raise CampaignCanceled(name)

    def hold_campaign(
        self,
        name: str,
        reason: str = "",
        *,
        by: str,
        via: Via | str = "python",
        unless_released_since_ms: int | None = None,
    ) -> bool:
        """Hold a campaign: none of its jobs is claimed until it is released. Takes constant time.

        Args:
            reason: shown to people; may be empty.
            by, via: who holds it and by what means, for the audit.
            unless_released_since_ms: do nothing if it was released at this time or later.

        Returns whether it was not held before.

        Raises:
            CampaignNotFound, CampaignCanceled, InvalidRequest.
        """
        audit = AuditEntry(
            action="hold", by=check_by(by), via=via, campaign=name, reason=check_reason(reason)
        )
        return self._mark_campaign("hold", audit, unless_released_since_ms)

    def release_campaign(
        self, name: str, *, by: str, via: Via | str = "python", canary_only: bool = False
    ) -> bool:
        """Release a held campaign, and what its canary holds back; returns whether it was held.

        Args:
            by, via: as for `hold_campaign`.
            canary_only: release what the canary holds back; a hold stays.

        Raises:
            CampaignNotFound, CampaignCanceled.
        """
        audit = AuditEntry(action="release", by=check_by(by), via=via, campaign=name)
        changed = self._mark_campaign("end_canary" if canary_only else "release", audit)
        while changed and self.continue_campaign_work(name)[0]:
            pass
        return changed

    def cancel_campaign(self, name: str, *, by: str, via: Via | str = "python") -> bool:
        """Mark a campaign as canceled: nothing of it is sent from now on. Takes constant time.

        Its waiting jobs are ended by `cancel_campaign_chunk`; by the workers, if nobody calls that.

        Args:
            by, via: as for `hold_campaign`.

        Returns whether it was not canceled before.

        Raises:
            CampaignNotFound.
        """
        audit = AuditEntry(action="cancel", by=check_by(by), via=via, campaign=name)
        try:
            return self._mark_campaign("cancel", audit)
        except CampaignCanceled:
            return False

    def cancel_campaign_chunk(self, name: str, limit: int = CHUNK) -> tuple[bool, int]:
        """End some of the waiting jobs of a canceled campaign.

        Returns whether to call this again, and how many were canceled by this call.
        """
        return self.continue_campaign_work(name, limit)

    def continue_campaign_work(self, name: str = "", limit: int = CHUNK) -> tuple[bool, int]:
        """Do a part of what a release or a cancel left to do, of any campaign if none is named.

        Without a name, campaigns past their retention are forgotten, too. Returns whether more is
        left, and how many jobs were canceled.
        """
        with translated_errors(self._settings.redis_url):
            more, canceled = self._scripts.and_ring("campaign_work", name, limit)
        return more == 1, int(canceled)

    def _mark_campaign(
        self, action: str, audit: AuditEntry, unless_released_since_ms: int | None = None
    ) -> bool:
        name = audit.campaign or ""
        since = "" if unless_released_since_ms is None else unless_released_since_ms
        with translated_errors(self._settings.redis_url):
            state, changed = self._scripts(
                "mark_campaign",
                action,
                name,
                audit.reason or "",
                audit.by,
                since,
                audit.operation_id,
                audit.stored_text(),
            )
        if state == "unknown":
            raise CampaignNotFound(name)
        if state == "canceled":
            raise CampaignCanceled(name)
        return bool(changed == 1)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _to_claims(
    rows: Sequence[Sequence[Any]], token: str, now_ms: str, asked_at: float
) -> list[Claim]:
    return [to_claim(row, token=token, now_ms=int(now_ms), asked_at=asked_at) for row in rows]


def _state(text: str) -> State | None:
    try:
        return State(text)
    except ValueError:
        return None


def _operation(action: str, by: str | None, via: Via, **facts: Any) -> AuditEntry:
    return AuditEntry(
        action=action, by=local_user() if by is None else check_by(by), via=via, **facts
    )


def _audit_args(audit: AuditEntry) -> tuple[str, str]:
    """Return what each script takes that writes an entry of the audit."""
    return audit.operation_id, audit.stored_text()
