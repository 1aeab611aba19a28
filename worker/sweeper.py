"""The sweep, every second in every worker: move due jobs, and take over jobs of dead workers."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from ..broker import Doorbell
from ..ledger import Claim, Ledger, Result
from ..schemas import CampaignCanceled, CampaignNotFound, Outcome, QueueUnavailable, Settings
from .campaign_guard import ReleaseCanary, decide
from .observe.page_log import OperationLog, log_page_change
from .observe.recorded import Observer, log, pair
from .outcome.classify import outcome_without_call
from .outcome.policy import judge
from .tokens import Tokens, fingerprint_of

#: Average seconds between two sweeps of a worker.
SWEEP_EVERY_SECONDS = 1.0
#: How long after a Redis outage the sweep does not take over ended leases. The claims' owners first
#: get the chance to record their outcomes.
GRACE_AFTER_OUTAGE_SECONDS = 5.0

#: The operator and interface in audit entries for campaigns that were held or released
#: automatically.
_BY, _VIA = "the campaign's rules", "worker"
_HELD, _RELEASED = {"action": "campaign_held"}, {"action": "campaign_released"}

logger = logging.getLogger(__name__)


class Sweeper:
    """A thread of the worker's main process. Safe to run in every worker at once.

    Args:
        observe: called with each batch of recorded results.
        observe_repairs: called with the number of keys that were repaired. Must not raise.
    """

    def __init__(
        self,
        settings: Settings,
        observe: Observer = log,
        observe_repairs: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._observe = observe
        self._observe_repairs = observe_repairs
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._end_leases_from = 0.0
        self._away = False
        self._pauses_cursor = 0
        #: Fingerprints of tokens that are not yet stored.
        self._changed_tokens: dict[str, str] | None = None
        self._campaigns_cursor = 0
        self._unrecorded: list[Result] = []
        self._operations = OperationLog()

    def start(self) -> None:
        """Start the thread."""
        if self._thread is not None:
            return
        self._ledger = Ledger(
            self._settings, ring=Doorbell(self._settings).ring, on_page_change=log_page_change
        )
        self._tokens = Tokens(self._settings)
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, after the current sweep."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
            self._thread = None

    def _run(self) -> None:
        while not self._stopping.is_set():
            more = False
            try:
                more = self._sweep()
                self._away = False
            except QueueUnavailable as error:
                self._end_leases_from = time.monotonic() + GRACE_AFTER_OUTAGE_SECONDS
                if not self._away:
                    logger.warning("%s; trying again", error, extra={"action": "redis_away"})
                self._away = True
            except Exception:  # without sweeps, no retry would be sent
                logger.exception("internal error in the sweep", extra={"action": "fault"})
            if not more:
                # Random, so that workers that started together do not sweep together.
                self._stopping.wait(SWEEP_EVERY_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - not a secret

    def _sweep(self) -> bool:
        """Sweep once. Return whether to sweep again immediately."""
        swept = self._ledger.sweep(end_leases=time.monotonic() >= self._end_leases_from)
        for text in swept.repairs:
            logger.warning("repaired in Redis: %s", text, extra={"action": "repaired"})
        self._observe_repairs(len(swept.repairs))
        self._unrecorded += [
            self._judge(claim, outcome)
            for claim in swept.claims
            if (outcome := outcome_without_call(claim)) is not None
        ]
        self._record()
        self._note_tokens()
        self._resume_pages_with_new_tokens()
        # Continue the work of a released or canceled campaign.
        campaign_work_left, _ = self._ledger.continue_campaign_work()
        self._guard_campaigns()
        self._operations.log_new(self._ledger.reader)
        return swept.more or campaign_work_left

    def _judge(self, claim: Claim, outcome: Outcome) -> Result:
        return judge(
            claim,
            outcome,
            now=time.monotonic(),
            settings=self._settings,
            # Random: one of the jobs may have killed the process, so the jobs must not be retried
            # together.
            jitter=random.random(),  # noqa: S311 - not a secret
        )

    def _record(self) -> None:
        """Record results. If Redis fails, keep them for the next sweep."""
        if self._unrecorded:
            recorded = pair(self._unrecorded, self._ledger.record(self._unrecorded))
            self._unrecorded = []
            self._observe(recorded)

    def _guard_campaigns(self) -> None:
        """Hold failing campaigns, and release campaigns whose canary succeeded."""
        watched, self._campaigns_cursor = self._ledger.reader.watched_campaigns(
            self._campaigns_cursor
        )
        for each in watched:
            name, decision = each.campaign.name, decide(each)
            if decision is None:
                continue
            # The campaign was canceled or deleted meanwhile.
            with suppress(CampaignCanceled, CampaignNotFound):
                if isinstance(decision, ReleaseCanary):
                    self._ledger.release_campaign(name, by=_BY, via=_VIA, canary_only=True)
                    logger.info("campaign %s: its canary succeeded", name, extra=_RELEASED)
                elif self._ledger.hold_campaign(
                    name,
                    decision.reason,
                    by=_BY,
                    via=_VIA,
                    unless_released_since_ms=each.read_at_ms,
                ):
                    logger.warning("campaign %s is held: %s", name, decision.reason, extra=_HELD)

    def _note_tokens(self) -> None:
        """Store the token fingerprint of each page, for the rates and pauses of tokens."""
        changed = self._tokens.changed_fingerprints()
        if changed is not None:
            self._changed_tokens = changed
        if self._changed_tokens is not None:
            self._ledger.write_page_tokens(self._changed_tokens)
            self._changed_tokens = None

    def _resume_pages_with_new_tokens(self) -> None:
        # Each sweep checks some of the pauses, because a token may have very many pages.
        pauses, self._pauses_cursor = self._ledger.reader.some_pauses(self._pauses_cursor)
        refused = {
            pause.page_id: pause.token_fingerprint
            for pause in pauses
            if pause.reason == "auth"
            and pause.token_fingerprint != fingerprint_of(self._tokens.for_page(pause.page_id))
        }
        # Wait until every pump has read the new token. Otherwise the old token would be refused
        # again.
        if refused and self._tokens.settled:
            self._ledger.resume(refused)
