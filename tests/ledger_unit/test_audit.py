"""The audit: one entry an operation, written with the change itself, bounded in number and age."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from harasocial_dispatch.ledger import AUDIT_DAYS, AUDIT_ENTRIES, AuditEntry, JobFilter
from harasocial_dispatch.producer import Producer, bulk_replay
from harasocial_dispatch.producer.bulk_replay import Replay
from harasocial_dispatch.schemas import OutcomeClass, QueueUnavailable, from_ms

if TYPE_CHECKING:
    from .conftest import Story


def entries(story: Story, **options: Any) -> list[AuditEntry]:
    return story.ledger.reader.audit(**options)


def test_a_replay_of_many_calls_is_one_entry_with_all_jobs(
    story: Story, monkeypatch: pytest.MonkeyPatch
):
    """Who, when it began, with what, which jobs and how many; each call adds its jobs."""
    for _ in range(5):
        story.fail()
    monkeypatch.setattr(bulk_replay, "_BATCH_SIZE", 2)
    wanted = JobFilter(error_codes=("551",))
    began = from_ms(story.clock_ms())

    run = Replay(story.ledger, wanted=wanted, text="__hrf", by="thao", via="flower").run()
    next(run)
    (half,) = entries(story)
    story.wait(60)
    list(run)

    (entry,) = entries(story)
    assert (half.count, entry.count) == (2, 5)
    assert (entry.action, entry.by, entry.via, entry.at) == ("replay", "thao", "flower", began)
    # A text that is searched for may be a person's id.
    assert entry.filter == {"error_code": ["551"], "text": "not kept"}


def test_a_change_whose_reply_is_lost_is_in_the_audit(
    story: Story, monkeypatch: pytest.MonkeyPatch
):
    """The same script makes both; a second call afterwards could be lost with the process."""
    replayed, canceled = story.fail(), story.enqueue("2")
    producer = Producer(story.settings, ledger=story.ledger)
    send = story.ledger._scripts.run

    def lose_the_reply(*args: Any) -> Any:
        send(*args)
        raise QueueUnavailable("the reply was lost")

    monkeypatch.setattr(story.ledger._scripts, "run", lose_the_reply)
    for change, job_id in ((producer.replay, replayed), (producer.cancel, canceled)):
        with pytest.raises(QueueUnavailable):
            change(job_id)
        story.wait(1)
    monkeypatch.undo()

    assert [(e.action, e.count, e.filter) for e in entries(story)] == [
        ("cancel", 1, {"job_id": [canceled]}),
        ("replay", 1, {"job_id": [replayed]}),
    ]
    assert all("@" in entry.by and entry.via == "python" for entry in entries(story))


def test_what_changes_nothing_is_not_in_the_audit(story: Story):
    """Jobs that were not failed, or had ended, and ids that no job has."""
    job_id = story.fail()
    story.ledger.cancel([job_id, "unknown"])
    story.ledger.replay([story.enqueue("2"), "unknown"])
    assert entries(story) == []


def test_a_job_has_its_replays_with_who_made_them(story: Story):
    """In order, the latest 20; the claim of a replayed job has all its attempts to spend."""
    job_id = story.fail()
    for number in range(22):
        story.ledger.replay([job_id], AuditEntry(action="replay", by=f"user-{number}", via="cli"))
        at = from_ms(story.clock_ms())
        story.wait(1)
        (claim,) = story.claim()
        assert claim.attempts_spent == 0
        story.record(claim, OutcomeClass.PERMANENT)
    replays = story.get(job_id).replays
    assert [replay.by for replay in replays] == [f"user-{number}" for number in range(2, 22)]
    assert (replays[-1].at, replays[-1].via) == (at, "cli")
    assert story.get(job_id).as_json()["replays"][-1] == {
        "at": "2026-01-31T09:30:21.000Z", "by": "user-21", "via": "cli",
    }  # fmt: skip


def test_entries_are_found_by_time_the_latest_first(story: Story):
    """`since` and `until` include their own millisecond."""
    times = []
    for name in "abcd":
        times.append(from_ms(story.clock_ms()))
        story.ledger.write_audit(AuditEntry(action="pause", by=name, page_id="1", reason="a test"))
        story.wait(10)
    assert [entry.by for entry in entries(story)] == ["d", "c", "b", "a"]
    assert [entry.by for entry in entries(story, limit=2)] == ["d", "c"]
    assert [entry.by for entry in entries(story, since=times[1], until=times[2])] == ["c", "b"]
    assert (entries(story)[0].page_id, entries(story)[0].reason) == ("1", "a test")


def test_entries_are_forgotten_after_90_days(story: Story):
    """They are not returned any more; and the next entry takes them out of Redis."""
    story.ledger.write_audit(AuditEntry(action="pause", by="old"))
    story.wait(timedelta(days=AUDIT_DAYS).total_seconds() - 1)
    assert [entry.by for entry in entries(story)] == ["old"]
    story.wait(2)
    assert entries(story) == []
    story.ledger.write_audit(AuditEntry(action="pause", by="new"))
    assert [entry.by for entry in entries(story)] == ["new"]
    assert story.client.hlen(story.key("audit_entries")) == 1


def test_no_more_entries_are_kept_than_the_latest_10_000(story: Story):
    """Whatever replays one job after the other; the entries are small."""
    now = story.clock_ms()
    text = json.dumps({"action": "replay", "by": "x", "via": "cli", "at_ms": now, "count": 1})
    ids = {f"{number:05}": now - AUDIT_ENTRIES + number for number in range(AUDIT_ENTRIES + 3)}
    story.client.zadd(story.key("audit"), ids)
    story.client.hset(story.key("audit_entries"), mapping=dict.fromkeys(ids, text))
    story.ledger.write_audit(AuditEntry(action="pause", by="new"))
    assert story.client.zcard(story.key("audit")) == AUDIT_ENTRIES
    assert story.client.hlen(story.key("audit_entries")) == AUDIT_ENTRIES
    assert story.client.zrank(story.key("audit"), "00003") is None
    assert story.client.zrank(story.key("audit"), "00004") == 0


@pytest.mark.parametrize(
    "text", ["", "[", "5", "null", "[]", "{}", '{"at_ms": 1e300, "action": 1, "by": {}, "via": []}']
)
def test_what_another_client_put_into_the_audit_stops_nothing(story: Story, text: str):
    """Such an entry is left out, and a change is recorded all the same."""
    story.ledger.write_audit(AuditEntry(action="pause", by="ours", operation_id="ours"))
    story.client.zadd(story.key("audit"), {"theirs": story.clock_ms(), "gone": story.clock_ms()})
    story.client.hset(story.key("audit_entries"), "theirs", text)
    assert [entry.by for entry in entries(story)] == ["ours"]
    story.ledger.write_audit(AuditEntry(action="pause", by="ours", operation_id="theirs"))


def test_texts_of_an_entry_are_short_and_cannot_act(story: Story):
    """A reason is one line of at most 200 characters."""
    reason = "\x1b[2J\n" + "x" * 1000
    story.ledger.write_audit(AuditEntry(action="pause", by="a\nb", reason=reason))
    (entry,) = entries(story)
    assert entry.by.isprintable()
    assert entry.reason is not None
    assert entry.reason.isprintable()
    assert len(entry.reason) <= 200
