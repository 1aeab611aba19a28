"""The producer for asyncio: it never blocks the loop, and handles cancellation."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from harasocial_dispatch import producer as host
from harasocial_dispatch.ledger import Enqueued, Ledger
from harasocial_dispatch.ledger.scripts import Scripts
from harasocial_dispatch.producer import EnqueueUnknown, InvalidJob, Producer, QueueUnavailable, aio
from harasocial_dispatch.producer.aio import MAX_THREADS, AsyncProducer, CompletedCall
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.schemas import Settings, State
from harasocial_dispatch.testing import TestKit
from support.harness import body

#: The producer's time limit without Redis, and a margin for a busy machine.
MOST_SECONDS = 2 + 1.0


def public_methods(of: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(of, inspect.isfunction) if name[0] != "_"}


def test_every_method_of_the_producer_has_one_that_is_awaited() -> None:
    """If this fails, add the new method to `AsyncProducer`: one line in producer/aio.py."""
    assert public_methods(AsyncProducer) == public_methods(Producer)
    for name in public_methods(Producer) - {"close"}:
        ours, theirs = getattr(AsyncProducer, name), getattr(Producer, name)
        assert ours.__doc__ == theirs.__doc__
        assert inspect.signature(ours) == inspect.signature(theirs)
    for name in public_methods(Producer) & {*host.__all__}:
        assert f"\n    {name} = _typed.{name}\n" in inspect.getsource(aio), "it has no type"
        assert getattr(aio, name).__func__ is getattr(AsyncProducer, name)


@pytest.fixture
def kit() -> Iterator[TestKit]:
    with TestKit() as running:
        yield running


def test_the_results_are_the_same_as_of_the_producer(kit: TestKit) -> None:
    """Values, errors and iterators are the same."""

    async def use() -> None:
        async with AsyncProducer() as producer:
            job_id = await producer.enqueue(body("sandbox:code:551"), idempotency_key="1")
            assert await aio.enqueue(body("sandbox:code:551"), idempotency_key="1") == job_id
            rows = [body("sandbox:code:551", metadata=f"{number}") for number in range(600)]
            report = await producer.enqueue_many(rows)
            assert len(report.accepted) == 600
            with pytest.raises(InvalidJob, match="recipient"):
                await producer.enqueue({})
            await asyncio.get_running_loop().run_in_executor(None, kit.drain)

            assert (await producer.get_job(job_id)).state is State.FAILED
            assert await producer.count_errors() == {"551": 601}
            failed = [job.job_id async for job in producer.iterate_failed(error_code="551")]
            assert sorted(failed) == sorted([job_id, *report.accepted])
            with pytest.raises(ValueError, match="has no value"):
                await anext(producer.iterate_failed(page_id=[]))

    asyncio.run(use())


def test_a_call_has_the_context_of_its_task(kit: TestKit) -> None:
    """For example, a log filter can add the request's id to each line."""
    request_id = contextvars.ContextVar("request_id", default="")
    seen: list[str] = []

    async def use() -> None:
        request_id.set("r-1")
        await AsyncProducer().enqueue_many(
            [body()], progress=lambda _: seen.append(request_id.get())
        )

    asyncio.run(use())
    assert seen == ["r-1"]


def test_the_loop_runs_while_redis_hangs_and_every_call_ends_in_time(
    own_valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With many more calls than threads, each call raises a correct error in time."""
    settings = Settings(redis_url=own_valkey.url)
    calls_in_threads = set()
    connection = Scripts.connection

    def noted(scripts: Scripts) -> Any:
        calls_in_threads.add(threading.get_ident())
        return connection(scripts)

    monkeypatch.setattr(Scripts, "connection", noted)

    async def use() -> tuple[list[Any], float, int]:
        async with AsyncProducer(settings) as producer:
            await producer.enqueue(body())
            own_valkey.pause()
            began = time.monotonic()
            calls = (producer.enqueue(body(metadata=f"{n}")) for n in range(3 * MAX_THREADS))
            waiting = asyncio.gather(*calls, return_exceptions=True)
            turns = 0
            while not waiting.done():
                await asyncio.sleep(0.01)
                turns += 1
            seconds = time.monotonic() - began
            own_valkey.resume()
            return await waiting, seconds, turns

    errors, seconds, turns = asyncio.run(use())
    assert seconds < MOST_SECONDS
    # The calls take more than a second, so the loop can run more than 100 times.
    assert turns > 10
    assert threading.get_ident() not in calls_in_threads
    unknown = {error.job_ids[0] for error in errors if isinstance(error, EnqueueUnknown)}
    refused = [error for error in errors if type(error) is QueueUnavailable]
    assert len(unknown) + len(refused) == 3 * MAX_THREADS
    assert any("32 calls are under way" in str(error) for error in refused)
    producer = Producer(settings)
    stored = {job.job_id for job in producer.find_jobs(limit=1000) if "metadata" in job.job}
    assert stored <= unknown
    producer.close()


class Gate:
    """Blocks the next script calls that store jobs, before or after they store them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, before: bool = False) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        enqueue = Ledger.enqueue

        def held(ledger: Ledger, *args: Any, **options: Any) -> Enqueued:
            stored = None if before else enqueue(ledger, *args, **options)
            self.reached.set()
            assert self.opened.wait(60)
            return enqueue(ledger, *args, **options) if stored is None else stored

        monkeypatch.setattr(Ledger, "enqueue", held)

    async def wait(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.reached.wait, 60)


async def canceled(
    call: Coroutine[Any, Any, Any], gate: Gate, *, times: int = 1
) -> asyncio.CancelledError:
    """Cancel a call that has reached the gate, open the gate, and return the end of the call."""

    async def end() -> asyncio.CancelledError:
        # Caught in the task: on Python 3.10, an await of the task raises another error.
        with pytest.raises(asyncio.CancelledError) as ended:
            await call
        return ended.value

    task = asyncio.create_task(end())
    await gate.wait()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0.05)
        assert not task.done(), "the task ended before its call"
    gate.opened.set()
    return await task


@pytest.mark.parametrize("times", [1, 3])
def test_a_canceled_call_reports_what_it_stored(
    kit: TestKit, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """It waits for the end of the call. The cause of the cancellation has the result."""

    async def use() -> None:
        error = await canceled(aio_enqueue(), Gate(monkeypatch), times=times)
        assert isinstance(error.__cause__, CompletedCall)
        assert [job.job_id for job in kit.enqueued()] == [error.__cause__.result]

    async def aio_enqueue() -> str:
        return await AsyncProducer().enqueue(body())

    asyncio.run(use())


def test_a_canceled_call_that_failed_reports_the_reason(
    kit: TestKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cause is the error of the call, here a conflict: nothing was stored."""
    kit.producer.enqueue(body(), idempotency_key="1")

    async def use() -> None:
        call = AsyncProducer().enqueue(body(metadata="other"), idempotency_key="1")
        error = await canceled(call, Gate(monkeypatch, before=True))
        assert type(error.__cause__).__name__ == "IdempotencyConflict"

    asyncio.run(use())
    assert len(kit.enqueued()) == 1


def test_a_call_that_is_canceled_before_it_starts_is_not_made(
    kit: TestKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that waits for a thread does nothing, and the cancellation has no cause."""
    monkeypatch.setattr(aio, "START_TIMEOUT_SECONDS", 60.0)  # for a busy machine
    gate = Gate(monkeypatch)

    async def use() -> None:
        producer = AsyncProducer()
        busy = [
            asyncio.create_task(producer.enqueue(body(metadata=f"{number}")))
            for number in range(MAX_THREADS)
        ]
        await gate.wait()
        late = asyncio.create_task(producer.enqueue(body(metadata="late")))
        await asyncio.sleep(0.05)
        late.cancel()
        with pytest.raises(asyncio.CancelledError) as ended:
            await late
        assert ended.value.__cause__ is None
        gate.opened.set()
        await asyncio.gather(*busy)

    asyncio.run(use())
    kit.assert_enqueued(count=MAX_THREADS)
    kit.assert_enqueued(metadata="late", count=0)


@pytest.mark.parametrize("on_invalid", ["raise", "skip"])
def test_a_canceled_enqueue_many_ends_after_the_current_batch(
    kit: TestKit, monkeypatch: pytest.MonkeyPatch, on_invalid: Any
) -> None:
    """The cause reports the stored jobs, and no more rows are read."""

    async def use() -> None:
        rows = (body(metadata=f"{number}") for number in range(2_000))
        call = AsyncProducer().enqueue_many(rows, on_invalid=on_invalid)
        error = await canceled(call, Gate(monkeypatch))
        assert isinstance(error.__cause__, CompletedCall)
        stored = {job.job_id for job in kit.enqueued()}
        assert stored == set(error.__cause__.result.accepted)
        assert len(stored) == 500

    asyncio.run(use())


def test_rows_that_are_still_being_validated_are_read_no_further(kit: TestKit) -> None:
    """A cancellation ends the reading, and nothing is stored."""
    reading = threading.Event()
    read = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal read
        for read in range(200_000):  # noqa: B007 - counted for the test
            yield body()
            reading.set()

    async def use() -> None:
        task = asyncio.create_task(AsyncProducer().enqueue_many(rows()))
        await asyncio.get_running_loop().run_in_executor(None, reading.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(use())
    assert read < 199_999
    kit.assert_enqueued(count=0)


def test_wait_for_raises_a_timeout(kit: TestKit, monkeypatch: pytest.MonkeyPatch) -> None:
    """`asyncio.wait_for` works as usual, but the call is completed."""
    gate = Gate(monkeypatch)

    async def use() -> None:
        waiting = asyncio.create_task(asyncio.wait_for(AsyncProducer().enqueue(body()), 0.1))
        await gate.wait()
        await asyncio.sleep(0.2)
        assert not waiting.done()
        gate.opened.set()
        with pytest.raises(asyncio.TimeoutError):
            await waiting

    asyncio.run(use())
    kit.assert_enqueued(count=1)
