"""How tallies reach the main process: none lost, none twice, and nobody waits."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from harasocial_dispatch.worker import reporting
from harasocial_dispatch.worker.reporting import Receiver, Reporter
from harasocial_dispatch.worker.tally import Tally
from stage import eventually


@pytest.fixture
def deaf_main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A main process that does not listen yet."""
    path = str(tmp_path / "metrics")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(path)
        monkeypatch.setenv("_HARASOCIAL_METRICS_SOCKET", path)
        monkeypatch.setattr(reporting, "REPORT_EVERY_SECONDS", 0.0)
        yield deaf


def test_what_a_busy_main_process_does_not_take_comes_later(deaf_main: socket.socket) -> None:
    """Nothing is lost, nothing counts twice, and no process waits for it."""
    # given more reports than the socket holds
    reporter = Reporter()
    for number in range(5000):
        reporter.add(Counter({("outcomes", "failed", f"{number % 300}"): 1}))

    # when the main process listens again
    heard: Tally = Counter()

    def listen() -> None:
        while data := deaf_main.recv(65536):
            heard.update({tuple(key): count for *key, count in json.loads(data)})

    listener = threading.Thread(target=listen)
    listener.start()
    eventually(lambda: reporter.flush() or sum(heard.values()) >= 5000, what="the last report")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
        last.sendto(b"", os.environ["_HARASOCIAL_METRICS_SOCKET"])
    listener.join()

    # then it has heard all of it
    assert sum(heard.values()) == 5000
    assert set(heard.values()) == {16, 17}


def test_a_main_process_that_is_gone_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Sending goes on without metrics."""
    monkeypatch.setenv("_HARASOCIAL_METRICS_SOCKET", str(tmp_path / "gone"))
    monkeypatch.setattr(reporting, "REPORT_EVERY_SECONDS", 0.0)
    reporter = Reporter()
    for _ in range(3):
        reporter.add(Counter({("claims_lost",): 1}))
    reporter.flush()
    (record,) = caplog.records
    assert "does not reach the metrics" in record.getMessage()


def test_a_receiver_hears_many_processes_and_leaves_no_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each by the path in its environment."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    heard: Tally = Counter()
    receiver = Receiver(heard.update)
    reporters = [Reporter() for _ in range(3)]
    for reporter in reporters:
        reporter.add(Counter({("doorbells",): 2}))
        reporter.flush()
    eventually(lambda: heard["doorbells",] == 6)
    receiver.stop()
    assert [*tmp_path.iterdir()] == []
    assert "_HARASOCIAL_METRICS_SOCKET" not in os.environ
