"""Replay failed jobs: first a plan with the causes of the failures, then the replay at a rate."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from ..ledger import MAX_VALUES, AuditEntry, Cursor, JobFilter, Ledger, Via, local_user
from ..schemas import QueueUnavailable, State, from_ms
from ..schemas.error_codes import KIND_NAMES, ErrorCode, Explanation, ReplayKind, row_of
from ..schemas.language import Language

#: Maximum number of jobs that one script call replays: large enough that the call's fixed cost is
#: small.
_BATCH_SIZE = 500
#: Maximum number of script calls per second if there is a rate.
_BATCHES_PER_SECOND = 10
#: Maximum number of job ids that the audit entry of a replay contains.
_AUDITED_IDS = 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cause:
    """An error code of jobs to be replayed, and the number of these jobs."""

    error_code: str
    count: int

    @property
    def row(self) -> ErrorCode:
        """The explanation of the code."""
        return row_of(self.error_code)

    def explain(self, language: Language) -> Explanation:
        """Return what the code means and what to do."""
        return self.row.texts[language]

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object that `replay --json` prints."""
        meaning, what_to_do = self.explain("en")
        return {
            "error_code": self.error_code,
            "count": self.count,
            "replay": self.row.replay.value,
            "meaning": meaning,
            "what_to_do": what_to_do,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CauseGroup:
    """The causes with the same kind of replay."""

    kind: ReplayKind
    causes: Sequence[Cause]

    @property
    def count(self) -> int:
        """Number of jobs."""
        return sum(cause.count for cause in self.causes)

    def name(self, language: Language) -> str:
        """Return a short advice."""
        return KIND_NAMES[self.kind][language]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPlan:
    """The plan of a replay.

    Attributes:
        total: number of jobs that would be replayed.
        causes: why they failed, the most frequent error code first.
        refused: the states of requested jobs that are not failed, by id; None: no such job.
    """

    total: int = 0
    causes: Sequence[Cause] = ()
    refused: Mapping[str, State | None] = field(default_factory=dict)

    @property
    def kinds(self) -> list[CauseGroup]:
        """The causes by kind of replay; those that may succeed come first."""
        return group_causes(self.causes)

    def warnings(self, language: Language) -> list[str]:
        """Return warnings for the replay, one sentence each."""
        return warnings_about(self.causes, language)


#: The warnings for one job and for several jobs.
_WARNINGS: Mapping[str, tuple[Mapping[Language, str], Mapping[Language, str]]] = {
    "never": (
        {
            "en": "1 job should not be replayed: it would fail again, or reach a person twice.",
            "vi": "Không nên gửi lại 1 tin: tin sẽ lại lỗi, hoặc khách nhận hai lần.",
        },
        {
            "en": "{:,} jobs should not be replayed: they would fail again, or reach a person "
            "twice.",
            "vi": "Không nên gửi lại {:,} tin: tin sẽ lại lỗi, hoặc khách nhận hai lần.",
        },
    ),
    "maybe_sent": (
        {
            "en": "1 job may have been sent although it failed: a replay may send it twice.",
            "vi": "1 tin có thể đã đến nơi dù báo lỗi: gửi lại có thể khiến khách nhận hai lần.",
        },
        {
            "en": "{:,} jobs may have been sent although they failed: a replay may send them "
            "twice.",
            "vi": "{:,} tin có thể đã đến nơi dù báo lỗi: gửi lại có thể khiến khách nhận hai lần.",
        },
    ),
    "fixable": (
        {
            "en": "1 job needs attention before a replay: see what to do about its error code.",
            "vi": "1 tin cần xử lý trước khi gửi lại: xem việc cần làm của mã lỗi.",
        },
        {
            "en": "{:,} jobs need attention before a replay: see what to do about each error code.",
            "vi": "{:,} tin cần xử lý trước khi gửi lại: xem việc cần làm của từng mã lỗi.",
        },
    ),
}


def warnings_about(causes: Sequence[Cause], language: Language) -> list[str]:
    """Return warnings for a replay of jobs that failed for these causes."""
    counts = {group.kind: group.count for group in group_causes(causes)}
    maybe_sent = sum(
        cause.count
        for cause in causes
        if cause.row.may_have_been_sent and cause.row.replay is not ReplayKind.NEVER
    )
    numbers = {
        "never": counts.get(ReplayKind.NEVER, 0),
        "maybe_sent": maybe_sent,
        "fixable": counts.get(ReplayKind.FIXABLE, 0),
    }
    return [
        one[language] if numbers[name] == 1 else many[language].format(numbers[name])
        for name, (one, many) in _WARNINGS.items()
        if numbers[name]
    ]


def group_causes(causes: Sequence[Cause]) -> list[CauseGroup]:
    """Return the causes by kind of replay; those that may succeed come first."""
    groups = (
        CauseGroup(kind=kind, causes=[each for each in causes if each.row.replay is kind])
        for kind in KIND_NAMES
    )
    return [group for group in groups if group.causes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """Jobs that were queued again, and the states of the others (None: no such job)."""

    job_ids: list[str]
    refused: dict[str, State | None]


def replay_jobs(ledger: Ledger, job_ids: Sequence[str], audit: AuditEntry) -> Replayed:
    """Queue failed jobs again at once; jobs in other states do not change.

    The number of queued jobs is added to the entry `audit`.

    Raises:
        QueueUnavailable: Redis failed, or the reply was lost.
    """
    before = dict(zip(job_ids, ledger.replay(job_ids, audit), strict=True))
    return Replayed(
        job_ids=[job_id for job_id, state in before.items() if state is State.FAILED],
        refused={job_id: state for job_id, state in before.items() if state is not State.FAILED},
    )


class Replay:
    """One replay of failed jobs, selected by id or by a filter.

    If a job fails again after the replay was planned, it is not replayed a second time.

    Args:
        job_ids: the jobs; None to select them with `wanted` and `text`.
        wanted: a filter of failed jobs.
        text: a text that the jobs contain; see `Reader`.
        kinds: only jobs whose error codes have these kinds of replay; empty for any kind.
        by: who replays them, for the audit; by default `user@host`.
        via: the interface that is used, for the audit.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        job_ids: Sequence[str] | None = None,
        wanted: JobFilter | None = None,
        text: str = "",
        kinds: Collection[ReplayKind] = (),
        by: str | None = None,
        via: Via = "python",
    ) -> None:
        self._ledger = ledger
        self._kinds = frozenset(kinds)
        self._job_ids = None if job_ids is None else list(dict.fromkeys(job_ids))
        self._wanted = wanted or JobFilter()
        self._bounded: list[JobFilter] | None = None
        self._text = text
        self._audit = AuditEntry(
            action="replay",
            by=by or local_user(),
            via=via,
            filter=_audited_filter(job_ids, self._wanted, text, self._kinds),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the rest of the replay as a JSON object."""
        bounded = self._bounded
        return {
            "job_ids": self._job_ids,
            "wanted": self._wanted.as_json(),
            "bounded": None if bounded is None else [each.as_json() for each in bounded],
            "kinds": [kind.value for kind in self._kinds],
            "text": self._text,
            "by": self._audit.by,
            "via": self._audit.via,
            "operation_id": self._audit.operation_id,
        }

    @classmethod
    def from_json(cls, ledger: Ledger, facts: Mapping[str, Any]) -> Replay:
        """Return the replay that `as_json` converted to `facts`, with the same audit entry.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: `facts` was not returned by `as_json`.
        """
        replay = cls(
            ledger,
            job_ids=facts["job_ids"],
            wanted=JobFilter.from_json(facts["wanted"]),
            text=facts["text"],
            kinds=[ReplayKind(kind) for kind in facts["kinds"]],
            by=facts["by"],
            via=facts["via"],
        )
        if facts["bounded"] is not None:
            replay._bounded = [JobFilter.from_json(each) for each in facts["bounded"]]
        replay._audit = replace(replay._audit, operation_id=facts["operation_id"])
        return replay

    def plan(
        self,
        *,
        stop: threading.Event | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> ReplayPlan:
        """Count the jobs without replaying them. A later `run` replays only these jobs.

        Args:
            stop: set it to end the count early.
            progress: called with the number of jobs counted so far, if counting takes long.

        Raises:
            QueueUnavailable: Redis is not available.
        """
        if self._job_ids is not None:
            return self._plan_ids(self._job_ids)
        codes: Counter[str] = Counter()
        total = 0
        for wanted in self._bound():
            if self._text or wanted.page_ids or wanted.campaigns:
                # No index has these counts.
                self._read_codes(wanted, codes, stop, progress)
                total = codes.total()
            else:
                codes.update(self._ledger.reader.count_by_error_code(wanted).by_name)
                total += self._ledger.reader.count_failed(wanted) or 0
        return _plan(codes, total=total)

    def _read_codes(
        self,
        wanted: JobFilter,
        codes: Counter[str],
        stop: threading.Event | None,
        progress: Callable[[int], object] | None,
    ) -> None:
        """Add the error codes of the jobs to `codes`. Reads one field of each job."""
        after: Cursor | None = None
        while not (stop and stop.is_set()):
            page = self._ledger.reader.failed_ids(wanted, text=self._text, after=after)
            codes.update(page.values)
            after = page.after
            if progress is not None:
                progress(codes.total())
            if after is None:
                break

    def run(
        self,
        rate: float | None = None,
        *,
        stop: threading.Event | None = None,
        retry_seconds: Sequence[float] = (),
        on_outage: Callable[[QueueUnavailable], object] | None = None,
    ) -> Iterator[Replayed]:
        """Queue the jobs again, and yield each batch. After an error, it may be called again.

        Args:
            rate: maximum number of jobs per second; None for no limit.
            stop: set it to end the replay after the current batch.
            retry_seconds: waiting times before each new attempt during an outage of Redis.
            on_outage: called with the error before each of these waits.

        Raises:
            QueueUnavailable: all attempts failed. It is unknown whether the jobs of the current
                batch were replayed.
        """
        stop = stop or threading.Event()
        attempt = _Attempts(stop=stop, pauses=retry_seconds, on_outage=on_outage)
        size = _BATCH_SIZE
        if rate is not None:
            size = min(_BATCH_SIZE, max(1, math.floor(rate / _BATCHES_PER_SECOND)))
        began, done = time.monotonic(), 0
        for job_ids in self._batches(size, attempt):
            if rate is not None:
                stop.wait(max(0.0, began + done / rate - time.monotonic()))
            if stop.is_set():
                return
            yield attempt(partial(replay_jobs, self._ledger, job_ids, self._audit))
            done += len(job_ids)

    def _batches(self, size: int, attempt: _Attempts) -> Iterator[Sequence[str]]:
        if self._job_ids is not None:
            while self._job_ids:
                yield self._job_ids[:size]
                # Removed only now, so that they are replayed again after an error.
                self._job_ids = self._job_ids[size:]
            return
        for wanted in attempt(self._bound):
            after: Cursor | None = None
            while True:
                page = attempt(
                    partial(
                        self._ledger.reader.failed_ids,
                        wanted,
                        text=self._text,
                        after=after,
                        limit=size,
                    )
                )
                if page.ids:
                    yield page.ids
                after = page.after
                if after is None:
                    break

    def _bound(self) -> list[JobFilter]:
        """Return the filters of the jobs. Jobs that fail after the first call do not match."""
        if self._bounded is None:
            now = from_ms(self._ledger.reader.now_ms())
            self._bounded = self._of_kinds(self._wanted.until_now(now))
        return self._bounded

    def _of_kinds(self, wanted: JobFilter) -> list[JobFilter]:
        """Return filters that together select the jobs of `wanted` with the wanted kinds."""
        if not self._kinds:
            return [wanted]
        codes = [
            code
            for code in self._ledger.reader.count_by_error_code(wanted).by_name
            if row_of(code).replay in self._kinds
        ]
        return [
            replace(wanted, error_codes=tuple(codes[start : start + MAX_VALUES]))
            for start in range(0, len(codes), MAX_VALUES)
        ]

    def _plan_ids(self, job_ids: list[str]) -> ReplayPlan:
        statuses = self._ledger.reader.statuses(job_ids)
        codes: Counter[str] = Counter()
        refused: dict[str, State | None] = {}
        for job_id in job_ids:
            status = statuses.get(job_id)
            if status is not None and status.state is State.FAILED:
                codes[status.error_code] += 1
            else:
                refused[job_id] = status and status.state
        self._job_ids = [job_id for job_id in job_ids if job_id not in refused]
        return _plan(codes, refused=refused)


def _audited_filter(
    job_ids: Sequence[str] | None,
    wanted: JobFilter,
    text: str,
    kinds: Collection[ReplayKind],
) -> dict[str, Any]:
    if job_ids is not None:
        return {"job_id": list(job_ids[:_AUDITED_IDS])}
    facts = wanted.as_json()
    if kinds:
        facts["kind"] = sorted(kind.value for kind in kinds)
    if text:
        # The text may be a person's id.
        facts["text"] = "not kept"
    return facts


def _plan(
    codes: Mapping[str, int],
    *,
    total: int | None = None,
    refused: Mapping[str, State | None] | None = None,
) -> ReplayPlan:
    ordered = sorted(codes.items(), key=lambda item: (-item[1], item[0]))
    return ReplayPlan(
        total=sum(codes.values()) if total is None else total,
        causes=[Cause(code, count) for code, count in ordered],
        refused=refused or {},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempts:
    """Repeats a call during an outage of Redis, until there are no more waiting times."""

    stop: threading.Event
    pauses: Sequence[float]
    on_outage: Callable[[QueueUnavailable], object] | None

    def __call__(self, call: Callable[[], T]) -> T:
        for pause_seconds in self.pauses:
            try:
                return call()
            except QueueUnavailable as error:
                if self.on_outage is not None:
                    self.on_outage(error)
                if self.stop.wait(pause_seconds):
                    raise
        return call()
