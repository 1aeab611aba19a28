"""One idempotency key makes one job, and one call of `enqueue` makes its jobs once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import redis
from harasocial_dispatch.schemas import (
    EnqueueUnknown,
    NewJob,
    OutcomeClass,
    QueueUnavailable,
    State,
    parse_new_job,
)

if TYPE_CHECKING:
    from .conftest import Story


def new_job(**options: Any) -> NewJob:
    body = {"recipient": {"id": "1"}, "message": {"payload_id": "p"}, "page_id": "1"}
    return parse_new_job(body, options)


def test_the_same_key_gives_the_same_job(story: Story):
    """Whatever body the second call brings; what was stored stays (design promise 3)."""
    first = story.enqueue("1", idempotency_key="order-1001")
    second = story.enqueue("2", idempotency_key="order-1001", urgent=True)
    assert first == second
    assert story.get(first).page_id == "1"
    assert story.counts() == story.recount() == {"queued": 1}


def test_the_same_key_within_one_call_gives_the_same_job(story: Story):
    """A file may have a row twice."""
    jobs = [new_job(idempotency_key="a"), new_job(), new_job(idempotency_key="a"), new_job()]
    a, plain, again, other = story.ledger.enqueue(jobs).job_ids
    assert a == again
    assert len({a, plain, other}) == 3
    assert story.counts() == {"queued": 3}


def test_different_keys_are_different_jobs(story: Story):
    """Also such that only look alike to a pattern or a separator."""
    keys = ["a", "A", "a ", "*", "a:b", "a}", "ạ", "a" * 200, "job:1", "0"]
    ids = [story.enqueue(idempotency_key=key) for key in keys]
    assert len(set(ids)) == len(keys)
    assert [story.enqueue(idempotency_key=key) for key in keys] == ids


def test_jobs_without_a_key_are_all_different(story: Story):
    """The same message twice may be meant."""
    assert story.enqueue() != story.enqueue()


@pytest.mark.parametrize(
    "outcome_class", [None, OutcomeClass.ACCEPTED, OutcomeClass.PERMANENT, OutcomeClass.TRANSIENT]
)
def test_a_key_holds_while_its_job_is_kept(story: Story, outcome_class: OutcomeClass | None):
    """Whatever became of the job."""
    job_id = story.enqueue(idempotency_key="k")
    (claim,) = story.claim()
    if outcome_class is not None:
        story.record(claim, outcome_class)
    state = story.state(job_id)
    assert story.enqueue(idempotency_key="k") == job_id
    assert story.state(job_id) is state


def test_a_known_key_rings_no_bell(story: Story):
    """Nothing new is ready."""
    story.enqueue(idempotency_key="k")
    story.claim(answers_bell=True)
    assert not story.ledger.enqueue([new_job(idempotency_key="k")]).ring


class Faulty:
    """The ledger's scripts, of which one call or its reply is lost."""

    def __init__(self, scripts: Any, *, arrives: list[bool], error: Exception) -> None:
        self.scripts, self.arrives, self.error = scripts, arrives, error

    def __call__(self, name: str, *args: Any) -> Any:
        if not self.arrives:
            return self.scripts(name, *args)
        if self.arrives.pop(0):
            self.scripts(name, *args)
        raise self.error


BROKEN = redis.ConnectionError("reset by peer")


@pytest.mark.parametrize("arrived", [True, False])
def test_a_connection_that_breaks_once_makes_one_job(
    story: Story, monkeypatch: pytest.MonkeyPatch, arrived: bool
):
    """Whether the first call arrived or not: the second has the same ids."""
    faulty = Faulty(story.ledger._scripts, arrives=[arrived], error=BROKEN)
    monkeypatch.setattr(story.ledger, "_scripts", faulty)
    enqueued = story.ledger.enqueue([new_job(), new_job(idempotency_key="k")])
    assert story.counts() == story.recount() == {"queued": 2}
    assert sorted(story.claim_ids()) == sorted(enqueued.job_ids)


@pytest.mark.parametrize("arrived", [True, False])
@pytest.mark.parametrize(
    ("error", "tries"),
    [(redis.TimeoutError("no answer"), 1), (BROKEN, 2)],
    ids=["timeout", "broken"],
)
def test_a_reply_that_stays_lost_is_said_to_be_unknown(
    story: Story, monkeypatch: pytest.MonkeyPatch, error: Exception, tries: int, arrived: bool
):
    """With the ids to look up; the same key again makes one job (design promise 2)."""
    faulty = Faulty(story.ledger._scripts, arrives=[arrived] * tries, error=error)
    monkeypatch.setattr(story.ledger, "_scripts", faulty)
    with pytest.raises(EnqueueUnknown, match="same idempotency key") as caught:
        story.ledger.enqueue([new_job(idempotency_key="k")])
    (job_id,) = caught.value.job_ids
    assert (story.ledger.lookup.get(job_id) is not None) == arrived
    again = story.enqueue(idempotency_key="k")
    assert (again == job_id) == arrived
    assert story.counts() == {"queued": 1}


def test_a_refusal_by_redis_stores_nothing(story: Story, monkeypatch: pytest.MonkeyPatch):
    """Out of memory, say; then it is certain."""
    faulty = Faulty(
        story.ledger._scripts, arrives=[False], error=redis.exceptions.OutOfMemoryError("OOM")
    )
    monkeypatch.setattr(story.ledger, "_scripts", faulty)
    with pytest.raises(QueueUnavailable, match=r"no memory left.*nothing was enqueued") as caught:
        story.ledger.enqueue([new_job()])
    assert not isinstance(caught.value, EnqueueUnknown)
    assert story.counts() == story.recount() == {}


def test_namespaces_share_nothing(make_story: Callable[..., Story]):
    """Neither jobs nor keys, on one Redis."""
    one = make_story()
    other = type(one)(
        type(one.ledger)(type(one.settings)(namespace="other"), client=one.client),
        one.client,
        one.clock,
        one.settings,
    )
    job_id = one.enqueue(idempotency_key="k")
    assert other.enqueue(idempotency_key="k") != job_id
    assert other.ledger.lookup.get(job_id) is None
    assert other.ledger.cancel([job_id]) == [None]
    assert one.state(job_id) is State.QUEUED
    assert all(name.startswith(("{test}:", "{other}:")) for name in one.client.scan_iter("*"))
