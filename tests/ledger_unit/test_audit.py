"""The audit: one entry per operation, written with the change, limited in number and age."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from harasocial_dispatch.ledger import AUDIT_DAYS, AUDIT_ENTRIES, AuditEntry, JobFilter
from harasocial_dispatch.producer import Producer, bulk_replay
from harasocial_dispatch.producer.bulk_replay import Replay
from harasocial_dispatch.schemas import OutcomeClass, QueueUnavailable, from_ms
from support.scenario import Scenario


def add(scenario: Scenario, entry: AuditEntry) -> None:
    """Record an entry with the change of one job."""
    scenario.ledger.cancel([scenario.enqueue()], entry)


def entries(scenario: Scenario, **options: Any) -> list[AuditEntry]:
    return scenario.ledger.reader.audit(**options)


def test_a_replay_of_many_calls_is_one_entry_with_all_jobs(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry has author, time, interface, jobs and count; each call adds its jobs."""
    for _ in range(5):
        scenario.fail()
    monkeypatch.setattr(bulk_replay, "_BATCH_SIZE", 2)
    wanted = JobFilter(error_codes=("551",))
    began = from_ms(scenario.clock_ms())

    run = Replay(scenario.ledger, wanted=wanted, text="__hrf", by="thao", via="flower").run()
    next(run)
    (half,) = entries(scenario)
    scenario.wait(60)
    list(run)

    (entry,) = entries(scenario)
    assert (half.count, entry.count) == (2, 5)
    assert (entry.action, entry.by, entry.via, entry.at) == ("replay", "thao", "flower", began)
    # The text of a search may be a person's id.
    assert entry.filter == {"error_code": ["551"], "text": "not kept"}


def test_a_change_whose_reply_is_lost_is_in_the_audit(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One script makes the change and the entry, so a crash cannot separate them."""
    replayed, canceled = scenario.fail(), scenario.enqueue("2")
    producer = Producer(scenario.settings, ledger=scenario.ledger)
    send = scenario.ledger._scripts.run

    def lose_the_reply(*args: Any) -> Any:
        send(*args)
        raise QueueUnavailable("the reply was lost")

    monkeypatch.setattr(scenario.ledger._scripts, "run", lose_the_reply)
    for change, job_id in ((producer.replay, replayed), (producer.cancel, canceled)):
        with pytest.raises(QueueUnavailable):
            change(job_id)
        scenario.wait(1)
    monkeypatch.undo()

    assert [(e.action, e.count, e.filter) for e in entries(scenario)] == [
        ("cancel", 1, {"job_id": [canceled]}),
        ("replay", 1, {"job_id": [replayed]}),
    ]
    assert all("@" in entry.by and entry.via == "python" for entry in entries(scenario))


def test_operations_of_one_millisecond_keep_their_order(scenario: Scenario) -> None:
    for number in range(20):
        scenario.ledger.set_rate("500725830264749", number, 10, by=str(number))
    found = entries(scenario, limit=50)
    assert {entry.at for entry in found} == {from_ms(scenario.clock_ms())}
    assert [entry.by for entry in found] == [str(number) for number in reversed(range(20))]
    assert entries(scenario, limit=50, until=found[0].at) == found


def test_what_changes_nothing_is_not_in_the_audit(scenario: Scenario) -> None:
    """Jobs that are not failed or have ended, and unknown ids, change nothing."""
    job_id = scenario.fail()
    scenario.ledger.cancel([job_id, "unknown"])
    scenario.ledger.replay([scenario.enqueue("2"), "unknown"])
    assert entries(scenario) == []


def test_a_job_has_its_replays_with_who_made_them(scenario: Scenario) -> None:
    """A job keeps its latest 20 replays in order. Its next claim has no spent attempts."""
    job_id = scenario.fail()
    for number in range(22):
        scenario.ledger.replay(
            [job_id], AuditEntry(action="replay", by=f"user-{number}", via="cli")
        )
        at = from_ms(scenario.clock_ms())
        scenario.wait(1)
        (claim,) = scenario.claim()
        assert claim.attempts_spent == 0
        scenario.record(claim, OutcomeClass.PERMANENT)
    replays = scenario.get(job_id).replays
    assert [replay.by for replay in replays] == [f"user-{number}" for number in range(2, 22)]
    assert (replays[-1].at, replays[-1].via) == (at, "cli")
    assert scenario.get(job_id).as_json()["replays"][-1] == {
        "at": "2026-01-31T09:30:21.000Z", "by": "user-21", "via": "cli",
    }  # fmt: skip


def test_entries_are_found_by_time_the_latest_first(scenario: Scenario) -> None:
    """`since` and `until` are inclusive."""
    times = []
    for name in "abcd":
        times.append(from_ms(scenario.clock_ms()))
        add(scenario, AuditEntry(action="pause", by=name, page_id="1", reason="a test"))
        scenario.wait(10)
    assert [entry.by for entry in entries(scenario)] == ["d", "c", "b", "a"]
    assert [entry.by for entry in entries(scenario, limit=2)] == ["d", "c"]
    assert [entry.by for entry in entries(scenario, since=times[1], until=times[2])] == ["c", "b"]
    assert (entries(scenario)[0].page_id, entries(scenario)[0].reason) == ("1", "a test")


def test_entries_are_forgotten_after_90_days(scenario: Scenario) -> None:
    """Old entries are not returned, and the next entry deletes them from Redis."""
    add(scenario, AuditEntry(action="pause", by="old"))
    scenario.wait(timedelta(days=AUDIT_DAYS).total_seconds() - 1)
    assert [entry.by for entry in entries(scenario)] == ["old"]
    scenario.wait(2)
    assert entries(scenario) == []
    add(scenario, AuditEntry(action="pause", by="new"))
    assert [entry.by for entry in entries(scenario)] == ["new"]
    assert scenario.client.hlen(scenario.key("audit_entries")) == 1


def test_no_more_entries_are_kept_than_the_latest_10_000(scenario: Scenario) -> None:
    """Many single replays cannot fill Redis."""
    now = scenario.clock_ms()
    text = json.dumps({"action": "replay", "by": "x", "via": "cli", "at_ms": now, "count": 1})
    ids = {f"{number:05}": now - AUDIT_ENTRIES + number for number in range(AUDIT_ENTRIES + 3)}
    scenario.client.zadd(scenario.key("audit"), ids)
    scenario.client.hset(scenario.key("audit_entries"), mapping=dict.fromkeys(ids, text))
    add(scenario, AuditEntry(action="pause", by="new"))
    assert scenario.client.zcard(scenario.key("audit")) == AUDIT_ENTRIES
    assert scenario.client.hlen(scenario.key("audit_entries")) == AUDIT_ENTRIES
    assert scenario.client.zrank(scenario.key("audit"), "00003") is None
    assert scenario.client.zrank(scenario.key("audit"), "00004") == 0


@pytest.mark.parametrize(
    "text", ["", "[", "5", "null", "[]", "{}", '{"at_ms": 1e300, "action": 1, "by": {}, "via": []}']
)
def test_what_another_client_put_into_the_audit_stops_nothing(
    scenario: Scenario, text: str
) -> None:
    """Invalid entries are skipped, and changes are still recorded."""
    add(scenario, AuditEntry(action="pause", by="ours", operation_id="ours"))
    scenario.client.zadd(
        scenario.key("audit"), {"theirs": scenario.clock_ms(), "gone": scenario.clock_ms()}
    )
    scenario.client.hset(scenario.key("audit_entries"), "theirs", text)
    assert [entry.by for entry in entries(scenario)] == ["ours"]
    add(scenario, AuditEntry(action="pause", by="ours", operation_id="theirs"))


def test_texts_of_an_entry_are_short_without_control_characters(scenario: Scenario) -> None:
    """A reason is one line of at most 200 characters."""
    reason = "\x1b[2J\n" + "x" * 1000
    add(scenario, AuditEntry(action="pause", by="a\nb", reason=reason))
    (entry,) = entries(scenario)
    assert entry.by.isprintable()
    assert entry.reason is not None
    assert entry.reason.isprintable()
    assert len(entry.reason) <= 200
