"""The state of every job, in Redis.

Each change is one script call, so it happens completely or not at all, even if a process dies.
"""

from __future__ import annotations

import json
import logging
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from ..schemas.states import StrEnum
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

#: Consecutive failures that pause a page's lane (its breaker).
CONSECUTIVE_FAILURES = 5
#: Maximum number of jobs or lanes that one step of a release or a cancellation processes: about
#: 3 ms of the server's time.
CHUNK = 200
#: Maximum number of entries of each kind that one sweep processes.
SWEEP_LIMIT = 500
#: Maximum number of pages whose tokens are stored by one call.
_TOKENS = 1000
#: Maximum length (characters) of a repair's text, which contains the name of a key.
_REPAIR_CHARACTERS = 300
#: Number of keys of the database that each sweep scans during a rebuild: about 3 ms of the server's
#: time.
_REBUILD_KEYS = 500

logger = logging.getLogger(__name__)


class Lifted(StrEnum):
    """The pause that `resume_page` ended."""

    #: The page was not paused.
    NOTHING = "nothing"
    #: The page's pause by an operator has ended. An automatic pause may still be in effect.
    MANUAL = "manual"
    #: The page's automatic pause sends its probe at once.
    AUTOMATIC = "automatic"


class Ledger:
    """The jobs of one namespace. Thread-safe; each process creates its own.

    If another client replaced a key by one of another type, that key is renamed to
    `broken:<name>`, and its content is rebuilt from the jobs if possible: see lua/shared/keys.lua.

    Args:
        settings: `redis_url`, `namespace` and the times are used.
        timeout_seconds: for connecting, and for each reply.
        ring: called to send a doorbell that wakes a worker; must not raise. Not needed for reading.
        on_page_change: called when a page is paused by an outcome, probed, or resumed; must not
            raise.
        client: for tests; replaces the connection made from the settings.

    Every method raises `QueueUnavailable` if Redis is not available: it cannot be reached, refuses
    the command or does not reply in time.
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
        # The claims' owner. A claim token is "holder:number".
        self._holder = uuid.uuid4().hex
        self._claim_number = 0
        # Token of the latest claim if its reply was lost; None once its jobs are released.
        self._lost_claim: str | None = None
        self._namespace = Namespace(self._client, prefix, settings.redis_url, self._scripts)
        #: The methods that only read.
        self.reader = Reader(self._namespace, settings.page_rate)
        self.replay_store = ReplayStore(self._namespace)

    def check_version(self) -> None:
        """Raise `SettingsError` if a later version of this program wrote the namespace's keys.

        Every script makes the same check. This method is for programs that start.
        """
        with translated_errors(self._settings.redis_url):
            problem = explain_version(self._client, self._prefix)
        if problem:
            raise SettingsError(problem)

    def enqueue(self, jobs: Sequence[NewJob], *, skip_conflicts: bool = False) -> Enqueued:
        """Store all jobs or none, except jobs in conflict (design promises 1 to 3).

        A job is in conflict if its idempotency key belongs to a job with another body.

        Args:
            jobs: validated.
            skip_conflicts: leave out jobs in conflict and report them, instead of raising.

        Raises:
            IdempotencyConflict: a job is in conflict; nothing was stored.
            QueueUnavailable: nothing was stored.
            EnqueueUnknown: the reply was lost; the jobs may be stored.
        """
        return store(jobs, self._scripts, self._settings, skip_conflicts=skip_conflicts)

    @property
    def claim_was_lost(self) -> bool:
        """Whether the reply to the latest claim was lost, and its jobs are not released yet."""
        return self._lost_claim is not None

    def claim(
        self,
        max_jobs: int,
        *,
        in_flight_by_page: Mapping[str, int] | None = None,
        answers_bell: bool = False,
        next_claim_in_seconds: float = 0.0,
        has_possible_poison: bool = False,
        default_token: str = "",
    ) -> Claimed:
        """Claim at most `max_jobs` jobs that may be sent now, for `lease_seconds`.

        Args:
            max_jobs: at least 1.
            in_flight_by_page: this process's calls in flight.
            answers_bell: this is the first call after a doorbell.
            next_claim_in_seconds: the caller claims again within this time, so no doorbell is
                needed until then; 0 if it may stop.
            has_possible_poison: a claim with `possible_poison` is in flight, so no second one is
                claimed.
            default_token: fingerprint of the token of pages without their own token.

        Must not be called by two threads at once, or at the same time as `sweep`. If the reply is
        lost, the next call first releases the jobs that may have been claimed.
        """
        self._release_lost_claim()
        settings = self._settings
        token = self._next_token()
        # Read before the call, because the lease cannot begin earlier than this.
        asked_at = time.monotonic()
        self._lost_claim = token
        wait_ms, now_ms, changes, *rows = self._namespace.script_and_ring(
            "claim",
            token,
            max_jobs,
            round(settings.lease_seconds * 1000),
            repr(settings.page_rate),
            settings.page_burst,
            round(settings.safe_call_deadline_seconds * 1000),
            json.dumps(in_flight_by_page or {}),
            int(answers_bell),
            round(next_claim_in_seconds * 1000),
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
        self._namespace.script(
            "release", self._lost_claim, round(self._settings.lease_seconds * 1000)
        )
        self._lost_claim = None

    def wait_for_jobs(self, seconds: float) -> None:
        """Wait at most `seconds` until jobs may be ready for an attentive pump.

        Another pump may take them first.
        """
        timeout_seconds = self._client.connection_pool.connection_kwargs.get("socket_timeout")
        if timeout_seconds is not None:
            # With a longer wait, an empty queue would look like a server that does not reply.
            seconds = min(seconds, timeout_seconds / 2)
        with translated_errors(self._settings.redis_url):
            try:
                self._client.blpop([f"{self._prefix}wake"], timeout=seconds)
            except redis.ResponseError as error:
                # The key has the wrong type (the next script repairs it), or the server does not
                # support fractions of seconds. The caller claims without waiting.
                logger.debug("cannot wait for jobs: %s", error)

    def leave(self) -> None:
        """Record that this pump stops claiming, and ring for jobs that are ready."""
        self._namespace.script_and_ring("leave")

    def record(self, results: Sequence[Result]) -> list[bool]:
        """Record outcomes; return for each whether its claim was still valid (design promise 6)."""
        changes, *held = self._namespace.script(
            "record",
            round(self._settings.sent_ttl_seconds),
            CONSECUTIVE_FAILURES,
            *map(result_row, results),
        )
        self._report(changes)
        return [answer == 1 for answer in held]

    def _report(self, changes: Sequence[Sequence[Any]]) -> None:
        for row in changes:
            self._on_page_change(to_page_change(row))

    def sweep(self, *, end_leases: bool = True) -> Swept:
        """Queue due jobs, claim jobs that must be ended, delete jobs past their retention.

        The returned claims are jobs whose lease ended or that have a defect. They are never sent:
        the caller records their results. If it dies first, another sweep claims them after
        `lease_seconds`.

        During a rebuild of the indexes, each sweep also does a part of it.
        """
        settings = self._settings
        token = self._next_token()
        asked_at = time.monotonic()
        made_ready, more, rebuild, repairs, now_ms, *rows = self._namespace.script_and_ring(
            "sweep",
            SWEEP_LIMIT,
            int(end_leases),
            token,
            round(settings.lease_seconds * 1000),
            random.getrandbits(31),
            round(settings.failed_ttl_seconds * 1000),
        )
        if rebuild == 1:
            (rebuild,) = self._namespace.script(
                "rebuild",
                _REBUILD_KEYS,
                round(settings.lease_seconds * 1000),
                round(settings.retry_max_seconds * 1000),
            )
        return Swept(
            made_ready=made_ready,
            more=1 in (more, rebuild),
            claims=_to_claims(rows, token, now_ms, asked_at),
            repairs=[sanitize(text, _REPAIR_CHARACTERS) for text in repairs],
        )

    def write_page_tokens(self, fingerprints: Mapping[str, str]) -> None:
        """Store the tokens of pages with their own token (page_id → fingerprint)."""
        stored: list[str] = self._namespace.client.hkeys(self._namespace.key("page_tokens"))
        changes = dict.fromkeys(set(stored) - set(fingerprints), "") | dict(fingerprints)
        for some in chunks(changes, _TOKENS):
            pairs = (text for page_id in some for text in (page_id, changes[page_id]))
            self._namespace.script("page_tokens", *pairs)

    def resume(self, refused: Mapping[str, str]) -> None:
        """End the pauses of pages with a new token (page_id → fingerprint of the refused token)."""
        pairs = [text for pair in refused.items() for text in pair]
        (changes,) = self._namespace.script_and_ring("resume", *pairs)
        self._report(changes)

    def cancel(self, job_ids: Sequence[str], audit: AuditEntry | None = None) -> list[State | None]:
        """Cancel waiting jobs; return the state of each job afterwards, None if there is none.

        The script also adds the number of canceled jobs to the entry `audit`.
        """
        audit = audit or AuditEntry(action="cancel")
        _, *states = self._namespace.script("cancel", *_audit_args(audit), *job_ids)
        return [_state(text) for text in states]

    def cancel_matching(
        self,
        wanted: JobFilter,
        *,
        payload_ids: Sequence[str] = (),
        audit: AuditEntry | None = None,
        dry_run: bool = False,
    ) -> Iterator[list[CanceledJobs]]:
        """Cancel the waiting jobs that match a filter, and yield the jobs of each step in groups.

        A step takes a few milliseconds of Redis' time. To stop, end the iteration; a later call
        cancels the other jobs. Calls in flight end normally, and their jobs are yielded with the
        state SENDING. If such a call returns its job to the queue, this call may miss the job; a
        second call finds it. The script also adds the number of canceled jobs to the entry
        `audit`.

        Args:
            wanted: `since` and `until` bound when a job was enqueued.
            payload_ids: only jobs with one of these payloads; empty for any payload.
            dry_run: cancel nothing; yield the jobs that would be canceled.
        """
        audit = None if dry_run else audit or AuditEntry(action="cancel")
        return cancel_matching(self._namespace, wanted, payload_ids, audit)

    def replay(self, job_ids: Sequence[str], audit: AuditEntry | None = None) -> list[State | None]:
        """Queue failed jobs again; return the previous state of each, None if there is none.

        The script also adds the number of queued jobs to the entry `audit`, and stores in each job
        who replayed it.
        """
        audit = audit or AuditEntry(action="replay")
        states = self._namespace.script_and_ring(
            "replay",
            round(self._settings.expires_seconds * 1000),
            *_audit_args(audit),
            *job_ids,
        )
        return [_state(text) for text in states]

    # Operators' changes. Arguments are checked before anything is stored; a wrong argument raises
    # `InvalidRequest`.

    def pause_page(
        self,
        page_id: str,
        *,
        by: str | None = None,
        via: Via = "python",
        reason: str = "",
        for_seconds: float | None = None,
    ) -> int:
        """Pause a page; return how many jobs wait in its lane. Calls in flight end normally.

        Args:
            page_id: the page; it may have no jobs yet.
            by: who pauses it; `user@host` of this process by default.
            via: the interface that is used, for the audit.
            reason: shown to other operators; may be empty.
            for_seconds: duration of the pause; None until it is resumed.
        """
        page_id = check_page_id(page_id)
        self._pause(page_id, by=by, via=via, reason=reason, for_seconds=for_seconds)
        return self.reader.count_waiting([page_id])[page_id]

    def pause_all(
        self,
        *,
        by: str | None = None,
        via: Via = "python",
        reason: str = "",
        for_seconds: float | None = None,
    ) -> None:
        """Pause all pages, in addition to pauses of single pages; see `pause_page`."""
        self._pause(ALL_PAGES, by=by, via=via, reason=reason, for_seconds=for_seconds)

    def _pause(
        self, page_id: str, *, by: str | None, via: Via, reason: str, for_seconds: float | None
    ) -> None:
        reason, for_seconds = check_reason(reason), check_pause_seconds(for_seconds)
        details = {"for_seconds": for_seconds} if for_seconds else {}
        audit = _operation("pause", by, via, page_id=page_id, reason=reason, details=details)
        note = json.dumps({"reason": reason, "by": audit.by})
        target = ("pause_all",) if page_id == ALL_PAGES else ("pause_page", page_id)
        self._namespace.script(*target, note, round((for_seconds or 0) * 1000), *_audit_args(audit))

    def resume_page(self, page_id: str, *, by: str | None = None, via: Via = "python") -> Lifted:
        """End a page's pause by an operator, or send the probe of its automatic pause at once.

        `by` (`user@host` of this process by default) and `via` are for the audit.
        """
        page_id = check_page_id(page_id)
        audit = _operation("resume", by, via, page_id=page_id)
        (lifted,) = self._namespace.script_and_ring("resume_page", page_id, *_audit_args(audit))
        return Lifted(lifted)

    def resume_all(self, *, by: str | None = None, via: Via = "python") -> bool:
        """End the pause of all pages; return whether there was one.

        Pauses of single pages stay in effect. `by` and `via` as for `resume_page`.
        """
        audit = _operation("resume", by, via, page_id=ALL_PAGES)
        (was_paused,) = self._namespace.script_and_ring("resume_all", *_audit_args(audit))
        return bool(was_paused)

    def set_rate(
        self,
        page_id: str,
        rate: float,
        burst: int | None = None,
        *,
        by: str | None = None,
        via: Via = "python",
    ) -> None:
        """Set a page's own rate. Workers use it from their next claim.

        Args:
            rate: messages per second; 0 for no limit.
            burst: messages at once; None for the setting `page_burst`.
            by: who sets it; `user@host` of this process by default.
            via: the interface that is used, for the audit.
        """
        page_id = check_page_id(page_id)
        rate, burst = check_rate(rate, self._settings.page_burst if burst is None else burst)
        audit = _operation("rate", by, via, page_id=page_id, details={"rate": rate, "burst": burst})
        text = json.dumps({"rate": rate, "burst": burst, "by": audit.by})
        self._namespace.script_and_ring("set_rate", page_id, text, *_audit_args(audit))

    def clear_rate(self, page_id: str, *, by: str | None = None, via: Via = "python") -> bool:
        """Reset a page to the default rate; return whether it had its own rate.

        `by` and `via` as for `resume_page`.
        """
        page_id = check_page_id(page_id)
        audit = _operation("rate", by, via, page_id=page_id, details={"rate": "default"})
        (had_one,) = self._namespace.script_and_ring("set_rate", page_id, "", *_audit_args(audit))
        return bool(had_one)

    def announce_campaign(
        self,
        name: str,
        *,
        rows: int | None = None,
        canary: int | None = None,
        canary_max_failures: float | None = None,
        hold_at: float | None = None,
    ) -> None:
        """Store a campaign's number of rows and its rules, before its jobs are enqueued.

        Args:
            rows: the campaign is finished only after this many jobs have ended; None keeps the
                stored number.
            canary: number of jobs to send before the others wait for a release. Ignored if the
                campaign has begun to send.
            canary_max_failures: maximum share (0 to 1) of the canary that may fail. If it is not
                exceeded, the campaign is released automatically; otherwise it is held. None: an
                operator releases it.
            hold_at: the campaign is held if more than this share (0 to 1) of its latest 500 ended
                jobs failed.

        Raises:
            CampaignCanceled: it was canceled.
        """
        rules = {
            "canary": canary,
            "canary_max_failures": canary_max_failures,
            "hold_at": hold_at,
        }
        given = {rule: value for rule, value in rules.items() if value is not None}
        (state,) = self._namespace.script(
            "announce_campaign",
            name,
            "" if rows is None else rows,
            "" if canary is None else canary,
            json.dumps(given) if given else "",
        )
        if state == "canceled":
            raise CampaignCanceled(name)

    def hold_campaign(
        self,
        name: str,
        reason: str = "",
        *,
        by: str | None = None,
        via: Via | str = "python",
        unless_released_since_ms: int | None = None,
    ) -> bool:
        """Hold a campaign: its jobs are not claimed until it is released. Takes constant time.

        Args:
            reason: shown to other operators; may be empty.
            by, via: who holds it and with which interface, for the audit.
            unless_released_since_ms: do nothing if it was released at this time or later.

        Returns whether it was not held before.

        Raises:
            CampaignNotFound, CampaignCanceled, InvalidRequest.
        """
        audit = _operation("hold", by, via, campaign=name, reason=check_reason(reason))
        return self._mark_campaign("hold", audit, unless_released_since_ms)

    def release_campaign(
        self,
        name: str,
        *,
        by: str | None = None,
        via: Via | str = "python",
        canary_only: bool = False,
    ) -> bool:
        """Release a held campaign, and the jobs that wait for its canary.

        Returns whether it was held.

        Args:
            by, via: as for `hold_campaign`.
            canary_only: release only the jobs that wait for the canary; a hold stays.

        Raises:
            CampaignNotFound, CampaignCanceled.
        """
        audit = _operation("release", by, via, campaign=name)
        changed = self._mark_campaign("end_canary" if canary_only else "release", audit)
        while changed and self.continue_campaign_work(name)[0]:
            pass
        return changed

    def cancel_campaign(
        self, name: str, *, by: str | None = None, via: Via | str = "python"
    ) -> bool:
        """Mark a campaign as canceled, so that no more of its jobs are sent. Takes constant time.

        `continue_campaign_work` or, if it is not called, the workers then cancel its waiting jobs.

        Args:
            by, via: as for `hold_campaign`.

        Returns whether it was not canceled before.

        Raises:
            CampaignNotFound.
        """
        audit = _operation("cancel", by, via, campaign=name)
        try:
            return self._mark_campaign("cancel", audit)
        except CampaignCanceled:
            return False

    def continue_campaign_work(self, name: str = "", limit: int = CHUNK) -> tuple[bool, int]:
        """Do a step of the work that follows a release or a cancellation.

        Without a name, any campaign is processed, and campaigns past their retention are deleted.
        Returns whether work is left, and how many jobs were canceled.
        """
        more, canceled = self._namespace.script_and_ring("campaign_work", name, limit)
        return more == 1, int(canceled)

    def _mark_campaign(
        self, action: str, audit: AuditEntry, unless_released_since_ms: int | None = None
    ) -> bool:
        name = audit.campaign or ""
        since = "" if unless_released_since_ms is None else unless_released_since_ms
        state, changed = self._namespace.script(
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


def _operation(action: str, by: str | None, via: Via | str, **facts: Any) -> AuditEntry:
    return AuditEntry(action=action, by=check_by(by) if by else local_user(), via=via, **facts)


def _audit_args(audit: AuditEntry) -> tuple[str, str]:
    """Return the arguments for a script that writes an audit entry."""
    return audit.operation_id, audit.stored_text()
