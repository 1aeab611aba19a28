"""Another client replaces, deletes or fills each key with invalid content.

No call raises, every job ends, and everything that the jobs contain is rebuilt.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis
from harasocial_dispatch.ledger import Claim, JobFilter
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.schemas import (
    OutcomeClass,
    QueueUnavailable,
    SettingsError,
    State,
    from_ms,
)
from support.scenario import QuickScenario, Scenario

Wreck = Callable[[Any, str], object]

#: The right type of each key. <holder> is the process that claims.
KEYS = {
    "ready:1": "list",
    "urgent:1": "list",
    "lanes": "zset",
    "pauses": "hash",
    "paused_all": "string",
    "rates": "hash",
    "page_tokens": "hash",
    "tokens": "hash",
    "spent:1": "string",
    "due": "zset",
    "failed": "zset",
    "failed:551": "zset",
    "failed_on:1": "zset",
    "failed_codes": "zset",
    "failed_pages": "zset",
    "sent": "list",
    "cancelled": "list",
    "canceled_in_lane": "set",
    "counts": "hash",
    "idem:sent-key": "string",
    "last_claim:<holder>": "string",
    "revoked_claims:<holder>": "string",
    "audit": "zset",
    "audit_entries": "hash",
    "clock": "string",
    "bell": "string",
    "version": "string",
    "repairs": "list",
    "rebuild": "hash",
}


def sets(text: str) -> Wreck:
    """Return a function that replaces a key by a string."""
    return lambda client, key: client.set(key, text)


def hsets(fields: dict[str, str]) -> Wreck:
    """Return a function that sets fields of a hash."""
    return lambda client, key: client.hset(key, mapping=fields)


TYPES: dict[str, Wreck] = {
    "string": lambda client, key: client.set(key, "nonsense"),
    "list": lambda client, key: client.rpush(key, "nonsense", "", "1"),
}
STATES = ("scheduled", "queued", "sending", "retrying")
NUMBERS = ("", "x", "-1", "1e400", "nan", "inf", "1.5", "9" * 18, "9" * 30, str(2**63 - 1))
CONTENTS: dict[str, list[Wreck]] = {
    "counts": [hsets(dict.fromkeys(STATES, value)) for value in (*NUMBERS, "5")],
    "spent:1": [
        sets(value)
        for value in (*NUMBERS, *(f"{number} 1" for number in NUMBERS), "1 99999999999999999999")
    ],
    "clock": [sets(value) for value in NUMBERS],
    "revoked_claims:<holder>": [sets(value) for value in NUMBERS if value != "9" * 18],
    "bell": [
        sets(value)
        for value in (*NUMBERS, "attentive", "99999999999999 1", "1 99999999999999999999", "-1 -1")
    ],
    "last_claim:<holder>": [
        sets(value) for value in ("[]", "{}", "5", "null", "[1, {}, [], null]", "[" * 2000)
    ],
    "version": [sets(value) for value in ("", "x", "1.5")],
    "rebuild": [
        hsets(dict.fromkeys(["cursor", "found", "started_ms", "ready:1"], value))
        for value in NUMBERS
    ],
    "pauses": [
        hsets({"1": value})
        for value in (
            '{"level": 0, "failures": 1, "until_ms": 1, "x": 1e400, "y": null, "z": {"a": []}}',
            '{"level": 0, "failures": "x", "written_ms": 1e300, "reason": {}}',
            "[" * 2000,
        )
    ],
    **{
        index: [
            lambda client, key: client.zadd(
                key, dict.fromkeys(["x", *client.zrange(key, 0, -1)], "+inf")
            ),
            lambda client, key: client.zadd(
                key, dict.fromkeys(["x", *client.zrange(key, 0, -1)], "-inf")
            ),
            lambda client, key: client.zadd(key, {"ghost": "+inf", "ghost-2": "-inf", "": 5}),
        ]
        for index, kind in KEYS.items()
        if kind == "zset"
    },
    **{
        name: [lambda client, key: client.lpush(key, "ghost", "", "1")]
        for name in ("sent", "cancelled", "ready:1", "urgent:1")
    },
}
CASES = [
    *(
        pytest.param(name, wreck, id=f"{name}-is-a-{kind}")
        for name, right in KEYS.items()
        for kind, wreck in TYPES.items()
        # Redis treats all wrong types in the same way.
        if kind == ("list" if right in ("string", "hash") else "string")
    ),
    *(pytest.param(name, lambda *_: None, id=f"{name}-is-gone") for name in KEYS),
]


class Life:
    """One job in each state, and the steps that end them all."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.now = from_ms(scenario.clock_ms())
        self.ids: list[str] = []
        self.claims: list[Claim] = []
        self.repairs: list[str] = []
        self.sent = self.enqueue(idempotency_key="sent-key")
        self.end(scenario.claim())
        self.failed = self.enqueue()
        for claim in scenario.claim():
            scenario.record(claim, OutcomeClass.PERMANENT, error_code="551")
        self.enqueue()
        for claim in scenario.claim():
            scenario.record(claim, OutcomeClass.TRANSIENT)
        self.enqueue()
        self.enqueue()
        self.claims = scenario.claim()
        self.cancelled: set[str] = set()
        self.cancel(self.enqueue())
        self.enqueue()
        self.enqueue(urgent=True)
        self.enqueue("2")
        self.later()
        scenario.sweep()
        scenario.client.hset(
            scenario.key("pauses"), "2", '{"level": 0, "failures": 1, "until_ms": 0}'
        )

    def enqueue(self, page_id: str = "1", **options: Any) -> str:
        job_id = self.scenario.enqueue(page_id, **options)
        if job_id not in self.ids:
            self.ids.append(job_id)
        return job_id

    def cancel(self, *job_ids: str) -> None:
        self.scenario.ledger.cancel(job_ids)
        self.cancelled |= set(job_ids)

    def later(self) -> str:
        return self.enqueue(send_at=self.now + timedelta(seconds=40), urgent=True)

    def end(self, claims: list[Claim]) -> None:
        for claim in claims:
            self.scenario.record(claim, OutcomeClass.ACCEPTED)

    def key(self, name: str) -> str:
        return self.scenario.key(name.replace("<holder>", self.scenario.ledger._holder))

    def replace(self, name: str, wreck: Wreck) -> None:
        self.scenario.client.delete(self.key(name))
        wreck(self.scenario.client, self.key(name))

    def look(self) -> None:
        """Call every method that reads."""
        ledger = self.scenario.ledger
        for states in ((), *((state,) for state in State)):
            for record in ledger.reader.find(JobFilter(states=states), 100):
                json.dumps(record.as_json())
        for wanted in (
            JobFilter(),
            JobFilter(error_codes=("551",)),
            JobFilter(page_ids=("1",)),
            JobFilter(error_codes=("551",), page_ids=("1",)),
        ):
            ledger.reader.find(wanted, 10)
            ledger.reader.failed_page(wanted)
            ledger.reader.count_failed(wanted)
            ledger.reader.oldest_failed_ms(wanted)
            ledger.reader.count_by_error_code(wanted)
            ledger.reader.count_by_page(wanted)
        ledger.reader.count_over_time([JobFilter(error_codes=("551",))], [0, 1, 2])
        ledger.reader.count_by_error_code()
        ledger.reader.count_states()
        ledger.reader.sent_since(self.sent)
        ledger.reader.seconds_since_sweep()
        ledger.reader.waiting_by_page()
        ledger.reader.pauses()
        ledger.reader.backlog()
        ledger.reader.waiting_page(State.SCHEDULED)
        ledger.check_version()

    def act(self) -> None:
        """Call every method that changes a job once."""
        ledger = self.scenario.ledger
        self.enqueue()
        self.enqueue(urgent=True)
        self.later()
        self.enqueue(idempotency_key="sent-key")
        for claim in self.scenario.claim(1):
            self.scenario.record(claim, OutcomeClass.TRANSIENT)
        for claim in self.scenario.claim(3):
            self.scenario.record(
                claim, OutcomeClass.THROTTLED, retry_after_seconds=1.0, posted=False
            )
        self.cancel(self.later(), self.enqueue())
        ledger.replay([self.failed])
        ledger.resume({"1": "x"})
        ledger.leave()

    def lose_a_claim(self) -> None:
        self.scenario.claim_and_lose_the_reply(2)

    def give_it_back(self) -> None:
        self.claims += self.scenario.claim(1)

    def end_claims(self) -> None:
        self.end(self.claims)
        self.claims = []

    def steps(self) -> tuple[Callable[[], None], ...]:
        return (
            self.look,
            self.act,
            self.lose_a_claim,
            self.give_it_back,
            self.end_claims,
            self.sweep,
        )

    def sweep(self) -> None:
        self.scenario.ledger.write_page_tokens({"1": "a" * 16})
        more = True
        while more:
            swept = self.scenario.sweep()
            self.repairs += swept.repairs
            more = swept.more

    def finish(self) -> None:
        """Let an hour pass, in which all jobs are sent."""
        self.end_claims()
        for _ in range(200):
            self.scenario.wait(90)
            self.sweep()
            self.end(self.scenario.claim())
            if not self.scenario.recount().keys() & set(STATES):
                break
        # An id that is in a lane twice stays there.
        self.end(self.scenario.claim())
        self.sweep()


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    """A server of its own, because sweeps look for jobs among all keys of a server."""
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture
def life(server: EmbeddedValkey) -> Life:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    return Life(
        QuickScenario.on(
            server.url, page_rate=50.0, page_burst=50, retry_max_seconds=60.0, lease_seconds=60.0
        )
    )


def check_everything_ended(life: Life) -> None:
    scenario = life.scenario
    life.finish()
    unsent = {i: s for i in life.ids if (s := scenario.state(i)) is not State.SENT}
    assert unsent == dict.fromkeys(life.cancelled, State.CANCELLED)
    # Ids of another client are recorded as failed.
    ours = scenario.recount()
    counts = scenario.ledger.reader.count_states()
    assert {s: counts[State(s)] for s in STATES} == dict.fromkeys(STATES, 0)
    assert counts[State.FAILED] == ours["failed"]
    assert scenario.client.exists(scenario.key("rebuild")) == 0


@pytest.mark.parametrize(("name", "wreck"), CASES)
def test_a_replaced_key_stops_nothing(life: Life, name: str, wreck: Wreck) -> None:
    """A read, a claim, a record, a cancellation or a sweep may find it first."""
    wrecked = wreck(life.scenario.client, life.scenario.key("probe")) is not None
    for step in life.steps():
        life.replace(name, wreck)
        step()
    check_everything_ended(life)
    if wrecked:
        # … which is logged, and the old value is kept
        short = name.replace("<holder>", life.scenario.ledger._holder)
        # These two are read only if a page has a rate, or a token has a limit.
        unread = short in ("spent:1", "page_tokens")
        assert unread or any(short in text for text in life.repairs)
        client = life.scenario.client
        kept = client.keys(life.scenario.key("broken:*"))
        assert all(0 < client.ttl(key) <= 7 * 86_400 for key in kept)


@pytest.mark.parametrize("name", CONTENTS)
def test_odd_content_stops_nothing(life: Life, name: str) -> None:
    """Numbers out of range, text that is not JSON, ids without a job."""
    for wreck in CONTENTS[name]:
        for step in life.steps():
            wreck(life.scenario.client, life.key(name))
            step()
    check_everything_ended(life)


def test_jobs_alone_are_enough(life: Life) -> None:
    """All other keys are deleted: each job is found again and ends."""
    client = life.scenario.client
    before = life.scenario.recount()
    kept = (life.scenario.key("job:"), life.scenario.key("clock_of_test"))
    others = [key for key in client.scan_iter(life.scenario.key("*")) if not key.startswith(kept)]
    client.delete(*others)

    life.sweep()
    life.sweep()

    # The lists of sent and canceled jobs are not checked.
    assert life.scenario.counts() == before - Counter(sent=1, cancelled=1)
    assert life.scenario.ledger.reader.count_by_error_code().by_name == {"551": 1}
    assert life.enqueue(idempotency_key="sent-key") == life.sent
    assert any("put back" in text for text in life.repairs)
    life.scenario.ledger.replay([life.failed])
    check_everything_ended(life)


def test_a_rebuild_neither_doubles_nor_misses_a_job_of_a_long_lane(life: Life) -> None:
    """The rebuild takes many sweeps, while jobs are added and sent."""
    scenario = life.scenario
    ids = [scenario.enqueue("3") for _ in range(700)]
    scenario.wait(1)
    life.replace("ready:3", TYPES["string"])
    scenario.ledger.reader.waiting_by_page()
    scenario.wait(1)
    new = [scenario.enqueue("3") for _ in range(10)]
    assert scenario.sweep().more
    new += [scenario.enqueue("3") for _ in range(10)]
    life.sweep()
    lane = scenario.client.lrange(scenario.key("ready:3"), 0, -1)
    assert sorted(lane) == sorted(ids + new)


def test_repairs_are_limited(life: Life) -> None:
    """A client that repeats this forever fills neither Redis nor the log."""
    for number in range(300):
        life.scenario.client.set(life.scenario.key(f"ready:\x1b[2J{number}" + "x" * 500), "x")
        life.scenario.enqueue("4")
        life.scenario.ledger.reader.get("x")
        life.scenario.client.rpush(life.scenario.key("spent:5"), "x")
        life.scenario.client.zadd(life.scenario.key("lanes"), {"5": 0})
        life.scenario.claim()
    assert life.scenario.client.llen(life.scenario.key("repairs")) <= 100
    life.sweep()
    assert life.repairs
    assert all(text.isprintable() and len(text) <= 300 for text in life.repairs)


def dump(scenario: Scenario) -> dict[bytes, bytes]:
    """Return the serialized value of every key."""
    with redis.Redis.from_url(scenario.settings.redis_url) as client:
        return {key: client.dump(key) for key in client.scan_iter(scenario.key("*"))}


@pytest.mark.parametrize("found", ["3", "10"])
def test_keys_of_a_later_version_are_not_changed(life: Life, found: str) -> None:
    """Scripts refuse before they write; the error has both versions and what to do."""
    scenario = life.scenario
    scenario.client.set(scenario.key("version"), found)
    before = dump(scenario)
    for call in (scenario.enqueue, scenario.claim, scenario.ledger.sweep, life.look):
        with pytest.raises((QueueUnavailable, SettingsError)) as caught:
            call()
        assert f"layout {found}," in str(caught.value)
        assert "layout 2:" in str(caught.value)
        assert "HARASOCIAL_NAMESPACE" in str(caught.value)
    with pytest.raises(SettingsError, match="layout"):
        scenario.ledger.check_version()
    assert dump(scenario) == before


@pytest.mark.parametrize("found", ["1", "0"])
def test_keys_of_an_earlier_version_are_taken_over(life: Life, found: str) -> None:
    """After that, the earlier program, which compares for equality, refuses to run."""
    scenario = life.scenario
    scenario.client.set(scenario.key("version"), found)
    scenario.ledger.check_version()
    scenario.claim()
    assert scenario.client.get(scenario.key("version")) == "2"
    scenario.ledger.check_version()
