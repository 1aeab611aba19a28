"""The channel delivers every observation once to the main process, without blocking."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterable, Iterator

import pytest
from harasocial_dispatch.worker.observe.channel import MAX_KEPT, Channel, ObservationSender
from harasocial_dispatch.worker.observe.observations import Observation
from support.harness import eventually


class Main:
    """A main process that counts received observations by label. It can stop reading."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.reads = threading.Event()
        self.reads.set()
        #: Whether a received datagram waits until this process reads again.
        self.is_stopped = threading.Event()
        self.channel = Channel(self._add)

    def _add(self, observations: Iterable[Observation]) -> None:
        if not self.reads.is_set():
            self.is_stopped.set()
        self.reads.wait()
        self.counts.update(str(label) for _, _, label in observations)


@pytest.fixture
def main() -> Iterator[Main]:
    main = Main()
    yield main
    main.reads.set()
    main.channel.stop()


def child_that(main: Main, *labels: str) -> int:
    """Fork a child that counts each label and is then killed."""
    pid = os.fork()
    if pid == 0:
        sender = main.channel.sender()
        for label in labels:
            sender.add([("calls", 1, label)])
        os.kill(os.getpid(), signal.SIGKILL)
    return pid


def sender_of(main: Main) -> ObservationSender:
    """Return a sender in the main process itself."""
    return ObservationSender(main.channel._writing.dup())


def test_counts_of_killed_children_are_not_lost(main: Main) -> None:
    """After `kill -9`, a child cannot send kept observations."""
    for _ in range(10):
        os.waitpid(child_that(main, "first", "second", "third"), 0)
    eventually(lambda: sum(main.counts.values()) >= 30, what="the last observation")
    assert main.counts == {"first": 10, "second": 10, "third": 10}


def test_observations_for_a_busy_main_process_are_sent_later(main: Main) -> None:
    """No observation is lost or counted twice, and no process is blocked."""
    main.reads.clear()
    sender = sender_of(main)
    for number in range(5000):
        sender.add([("calls", 1, f"{number % 300}")])
    main.reads.set()

    def all_received() -> bool:
        sender.flush()
        return sum(main.counts.values()) >= 5000

    eventually(all_received, what="the last one")
    assert sum(main.counts.values()) == 5000
    assert set(main.counts.values()) == {16, 17}


def test_memory_is_limited_if_the_main_process_never_reads(main: Main) -> None:
    """The oldest observations are dropped."""
    main.reads.clear()
    sender = sender_of(main)
    many = [("calls", 1, "x")] * MAX_KEPT
    sender.add(many)
    eventually(main.is_stopped.is_set, what="the last datagram that is read")
    for _ in range(3):
        sender.add(many)
    assert len(sender._kept) == MAX_KEPT


def test_an_ended_main_process_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    """Jobs are still sent, without metrics."""
    main = Main()
    sender = sender_of(main)
    main.channel.stop()
    for _ in range(3):
        sender.add([("calls", 1, "x")])
    sender.flush()
    (record,) = caplog.records
    assert "do not reach the metrics" in record.getMessage()


def test_a_stopped_channel_has_added_all_received_observations() -> None:
    """The counts of the last scrape are complete."""
    main = Main()
    sender = sender_of(main)
    sender.add([("calls", 1, "x")] * 250)
    main.channel.stop()
    assert main.counts == {"x": 250}
