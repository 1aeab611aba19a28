"""Pages of failed jobs: complete, without duplicates, and with a bounded cost."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import fakeredis
import pytest
import redis
from harasocial_dispatch.ledger import Cursor, JobFilter, Ledger
from harasocial_dispatch.ledger.reading.cursor import iterate
from harasocial_dispatch.ledger.reading.index_page import Selection, read_ids
from harasocial_dispatch.ledger.reading.namespace import Namespace
from harasocial_dispatch.ledger.scripts import Scripts
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.schemas import Settings, State, parse_new_job
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from support.flower_harness import fail_job, new_page_id
from support.harness import body, eventually

START_MS = 1_769_850_000_000
CODES, PAGES = ("551", "190", "10/2018278"), ("1", "2")


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(START_MS / 1000 + seconds, timezone.utc)


#: Jobs as (second of the failure, code, page). Many fail in the same millisecond.
jobs = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(CODES), st.sampled_from(PAGES)), max_size=60
)
filters = st.builds(
    lambda error_codes, page_ids, since, length: JobFilter(
        error_codes=tuple(error_codes),
        page_ids=tuple(page_ids),
        since=None if since is None else at(since),
        until=None if length is None else at((since or 0) + length),
    ),
    st.lists(st.sampled_from(CODES), max_size=4),
    st.lists(st.sampled_from(PAGES), max_size=2),
    st.none() | st.integers(0, 5),
    st.none() | st.integers(0, 5),
)


def put_failed(client: Any, rows: Iterable[tuple[float, str, str]]) -> list[str]:
    """Write failed jobs directly to a ledger's keys; return their ids."""
    ids = []
    pipeline = client.pipeline()
    for number, (second, code, page_id) in enumerate(rows):
        job_id = f"{number * 7919 % 100_003:032x}"
        ms = START_MS + round(second * 1000)
        fields = {"state": "failed", "page_id": page_id, "error_code": code, "finished_at": ms}
        pipeline.hset(f"{{test}}:job:{job_id}", mapping={**fields, "metadata": f"order {number}"})
        for index in ("failed", f"failed:{code}", f"failed_on:{page_id}"):
            pipeline.zadd(f"{{test}}:{index}", {job_id: ms})
        pipeline.zadd("{test}:failed_codes", {code: ms})
        pipeline.zadd("{test}:failed_pages", {page_id: ms})
        ids.append(job_id)
    pipeline.execute()
    return ids


def ledger_on_fakeredis() -> tuple[Ledger, Any]:
    client = fakeredis.FakeRedis(decode_responses=True)
    return Ledger(Settings(namespace="test", page_rate=0.0), client=client), client


@effort(max_examples=60)
@given(rows=jobs, wanted=filters, limit=st.integers(1, 7))
def test_consecutive_pages_have_every_job_once(
    rows: list[tuple[int, str, str]], wanted: JobFilter, limit: int
) -> None:
    """The jobs are sorted by time, the latest first, as if all were read and sorted."""
    ledger, client = ledger_on_fakeredis()
    ids = put_failed(client, rows)
    expected = [
        (second, job_id)
        for job_id, (second, code, page_id) in zip(ids, rows, strict=True)
        if (not wanted.error_codes or code in wanted.error_codes)
        and (not wanted.page_ids or page_id in wanted.page_ids)
        and (wanted.since is None or at(second) >= wanted.since)
        and (wanted.until is None or at(second) <= wanted.until)
    ]
    reader = ledger.reader
    pages = reader.failed_pages(wanted, limit=limit)
    found = [record.job_id for page in pages for record in page.records]
    assert found == [job_id for _, job_id in sorted(expected, reverse=True)]
    count = reader.count_failed(wanted)
    assert count in (None, len(expected))
    assert (count is None) is bool(wanted.error_codes and wanted.page_ids)
    codes = dict(zip(ids, (code for _, code, _ in rows), strict=True))
    by_ids = iterate(lambda after: reader.failed_ids(wanted, after=after, limit=limit))
    found_codes = [pair for page in by_ids for pair in zip(page.ids, page.values, strict=True)]
    assert found_codes == [(job_id, codes[job_id]) for job_id in found]
    jobs = reader.find(replace(wanted, states=(State.FAILED,)), 100)
    assert sorted(record.job_id for record in jobs) == sorted(found)
    by_code = reader.count_by_error_code(wanted)
    assert (by_code.by_name, by_code.sample) == (Counter(codes[i] for i in found), None)
    assert sum(reader.count_by_page(wanted).by_name.values()) == len(found)


@given(rows=jobs, limit=st.integers(1, 7), kept=st.sets(st.integers(0, 59)))
def test_a_page_continues_after_its_jobs_were_removed(
    rows: list[tuple[int, str, str]], limit: int, kept: set[int]
) -> None:
    """A replay removes the jobs it has read from the index, and still reads all of them."""
    ledger, client = ledger_on_fakeredis()
    ids = put_failed(client, rows)
    staying = {ids[number] for number in kept if number < len(ids)}
    found: list[str] = []
    for page in ledger.reader.failed_pages(JobFilter(), limit=limit):
        read = [record.job_id for record in page.records]
        found += read
        gone = set(read) - staying
        if gone:
            client.zrem("{test}:failed", *gone)
    assert sorted(found) == sorted(ids)


def test_later_failures_are_not_on_the_next_pages() -> None:
    """Therefore, a replay by filter does not replay jobs that failed again."""
    ledger, client = ledger_on_fakeredis()
    ids = put_failed(client, [(1, "551", "1")] * 5)
    pages = ledger.reader.failed_pages(JobFilter(), limit=2)
    found = [record.job_id for record in next(pages).records]
    client.zadd("{test}:failed", {found[0]: START_MS + 9000})
    found += [record.job_id for page in pages for record in page.records]
    assert sorted(found) == sorted(ids)


@pytest.mark.parametrize("cursor", ["-1-a", "-inf-a", "inf-a", "0-a", "1e+300-a", "-1-" + "0" * 32])
def test_a_cursor_outside_the_list_is_its_start_or_end(ledger: Ledger, cursor: str) -> None:
    """Any time in a URL gives a page before or after all jobs, never an error."""
    after = Cursor.parse(cursor)
    assert ledger.reader.failed_page(JobFilter(), after=after).after is None
    job_id = fail_job(ledger, page_id=new_page_id())
    page = ledger.reader.failed_page(JobFilter(), after=after)
    assert page.after is None
    assert [record.job_id for record in page.records] == [job_id] * (after.ms > START_MS)


@pytest.mark.parametrize("desc", [True, False])
def test_invalid_scores_do_not_stop_the_listing(desc: bool) -> None:
    """Another client can write any score. The pages still continue and end."""
    _, client = ledger_on_fakeredis()
    ids = put_failed(client, [(second, "551", "1") for second in range(30)])
    for i, score in enumerate(("inf", "-inf", "-7.5", "0.5", "1e300", str(START_MS + 9999.5))):
        client.zadd("{test}:failed", {f"odd {i} {n}": score for n in range(10)})

    found: list[str] = []
    after: Cursor | None = None
    for _ in range(100):
        page = read_ids(
            Namespace(client, "{test}:", "", Scripts(client, "{test}:", lambda: None, {})),
            Selection(indexes=["failed"]),
            after=after,
            desc=desc,
            limit=7,
            scan_limit=7,
        )
        found += page.ids
        after = page.after and Cursor.parse(str(page.after))
        if after is None:
            break

    assert after is None
    assert len(found) == len(set(found)) == 30 + 60
    assert [job_id for job_id in found if job_id in set(ids)] == (ids[::-1] if desc else ids)


def test_a_text_is_found_in_every_field_of_a_job(ledger: Ledger) -> None:
    """Message, metadata, payload, recipient, page, code and id are searched, case-insensitively."""
    job_id = fail_job(
        ledger,
        page_id=new_page_id(),
        error_message="Ngoài khung GIỜ",
        metadata="Order 1001",
        payload_id="__hrf_f_ABC",
        recipient_id="2560816460001001",
    )
    fail_job(ledger, page_id=new_page_id(), metadata="order 2002")
    for text in ("ngoài khung giờ", "order 1001", "hrf_f_abc", "2560816460001001", job_id.upper()):
        (record,) = ledger.reader.failed_page(JobFilter(), text=text).records
        assert record.job_id == job_id
    assert ledger.reader.failed_page(JobFilter(), text="order 3003").records == []


def test_counts_by_code_and_page() -> None:
    """All jobs are counted, or the jobs of a filter."""
    ledger, client = ledger_on_fakeredis()
    put_failed(client, [(1, "551", "1")] * 3 + [(2, "190", "1")] * 2 + [(3, "551", "2")])
    reader = ledger.reader
    assert reader.count_by_error_code(JobFilter()).by_name == {"551": 4, "190": 2}
    assert reader.count_by_page(JobFilter()).by_name == {"1": 5, "2": 1}
    assert reader.count_by_error_code(JobFilter(page_ids=("1",))).by_name == {"551": 3, "190": 2}
    assert reader.count_by_page(JobFilter(error_codes=("551",), page_ids=("2",))).by_name == {
        "2": 1
    }
    assert reader.count_by_error_code(JobFilter(since=at(2))).by_name == {"190": 2, "551": 1}
    edges = [START_MS + 1000 * second for second in range(1, 5)]
    assert reader.count_over_time([JobFilter(), JobFilter(error_codes=("551",))], edges) == [
        [3, 2, 1],
        [3, 0, 1],
    ]


def test_a_limit_omits_the_earliest_and_the_result_reports_it() -> None:
    """The limit applies to jobs that are read and names that are counted."""
    ledger, client = ledger_on_fakeredis()
    put_failed(client, [(1, "551", "1")] * 3 + [(2, "190", "1")] * 2 + [(3, "190", "2")])
    reader = ledger.reader
    on_page = reader.count_by_error_code(JobFilter(page_ids=("1",)), limit=3)
    assert (on_page.by_name, on_page.sample) == ({"190": 2, "551": 1}, 3)
    assert reader.count_by_error_code(JobFilter(page_ids=("1",)), limit=9).sample is None
    codes = reader.count_by_error_code(limit=1)
    assert (codes.by_name, codes.sample, codes.names_left_out) == ({"190": 3}, None, 1)
    assert reader.count_by_page(limit=2).names_left_out == 0


@given(
    since_us=st.integers(-2500, 2500),
    length_us=st.integers(0, 4000),
    job_ms=st.lists(st.integers(-3, 5), max_size=8),
)
def test_every_result_treats_a_time_bound_the_same_way(
    since_us: int, length_us: int, job_ms: list[int]
) -> None:
    """A bound between two milliseconds has the same effect in every result."""
    ledger, client = ledger_on_fakeredis()
    ids = put_failed(client, [(ms / 1000, "551", "1") for ms in job_ms])
    since = at(0) + timedelta(microseconds=since_us)
    wanted = JobFilter(since=since, until=since + timedelta(microseconds=length_us))
    expected = sum(since_us <= ms * 1000 <= since_us + length_us for ms in job_ms)
    assert ledger.reader.count_failed(wanted) == expected
    assert len(ledger.reader.find(wanted, len(ids) + 1)) == expected
    assert len(ledger.reader.failed_page(wanted, limit=len(ids) + 1).records) == expected
    assert len(ledger.reader.failed_ids(wanted, limit=len(ids) + 1).ids) == expected


def test_a_replay_removes_a_page_from_the_counts(ledger: Ledger) -> None:
    """The list of pages has only pages that still have failures."""
    page_id = new_page_id()
    job_id = fail_job(ledger, page_id=page_id)
    assert ledger.reader.count_by_page(JobFilter()).by_name == {page_id: 1}
    ledger.replay([job_id])
    assert ledger.reader.count_by_page(JobFilter()).by_name == {}
    assert ledger.reader.statuses([job_id, "gone"]) == {job_id: (State.QUEUED, "")}


def test_a_cursor_is_written_and_read() -> None:
    """An id of another client can contain any characters."""
    for cursor in (
        Cursor(1, "a"),
        Cursor(START_MS, "0" * 32),
        Cursor(5, "a-b c/d"),
        Cursor(-7.5, "a"),
        Cursor(math.inf, "a"),
    ):
        assert Cursor.parse(str(cursor)) == cursor
    for text in ("", "-", "5-", "x-1", "²-a", "9" * 18 + "-a", "nan-a"):
        with pytest.raises(ValueError, match="is not a position"):
            Cursor.parse(text)


def test_the_last_page_of_many_costs_no_more_than_the_first(valkey: EmbeddedValkey) -> None:
    """The test measures the work: scanned entries, and the server's own measurement."""
    # given 12,000 failures, half of them in one millisecond
    client = redis.Redis.from_url(valkey.url, decode_responses=True)
    ledger = Ledger(Settings(redis_url=valkey.url, namespace="test", page_rate=0.0))
    try:
        ids = put_failed(client, [(0 if n % 2 else n, "551", "1") for n in range(12_000)])
        assert len(set(ids)) == 12_000

        def server_us(after: Cursor | None) -> int:
            client.config_resetstat()
            page = ledger.reader.failed_page(JobFilter(), after=after, limit=50)
            assert len(page.records) == 50
            assert page.scanned == 50
            stats = client.info("commandstats")
            return int(stats["cmdstat_evalsha"]["usec"])

        server_us(None)
        first = min(server_us(None) for _ in range(5))
        # when the page begins deep in the list, after an existing and after a removed entry
        deep = Cursor(START_MS, sorted(i for n, i in enumerate(ids) if n % 2)[2000])
        gone = Cursor(START_MS, deep.job_id + "x")
        # then the server needs about the same time
        for cursor in (deep, gone):
            assert min(server_us(cursor) for _ in range(5)) < 20 * first + 2000
    finally:
        client.delete(*client.keys("{test}:*"))
        client.close()
        ledger.close()


def test_waiting_jobs_come_in_the_order_they_are_due(ledger: Ledger) -> None:
    """Each state is listed separately, without claimed jobs, which share the index."""
    now = datetime.now(timezone.utc)
    later = []
    for hours in (3, 1, 2):
        new = parse_new_job(body(), {"send_at": now + timedelta(hours=hours)})
        later += ledger.enqueue([new]).job_ids
    retrying = [fail_job(ledger, page_id=new_page_id(), state=State.RETRYING) for _ in range(3)]
    first = ledger.reader.waiting_page(State.SCHEDULED, limit=2)
    rest = ledger.reader.waiting_page(State.SCHEDULED, limit=2, after=first.after)
    assert [r.job_id for r in first.records + rest.records] == [later[1], later[2], later[0]]
    assert rest.after is None
    assert {r.job_id for r in ledger.reader.waiting_page(State.RETRYING).records} == set(retrying)


def test_the_backlog_is_the_age_of_the_oldest_due_job(ledger: Ledger) -> None:
    """Jobs in lanes count, and so do due jobs that were not swept yet."""
    assert (ledger.reader.backlog().due, ledger.reader.backlog().oldest_seconds) == (0, 0.0)
    soon = datetime.now(timezone.utc) + timedelta(seconds=1)
    ledger.enqueue([parse_new_job(body()), parse_new_job(body(), {"send_at": soon})])
    enqueued = time.monotonic()
    eventually(lambda: ledger.reader.backlog().due == 1, what="the due job")
    least = time.monotonic() - enqueued
    oldest = ledger.reader.backlog().oldest_seconds
    most = time.monotonic() - enqueued
    # The clock of Redis counts milliseconds, and the job was enqueued a little earlier.
    assert least - 0.1 < oldest < most + 1
