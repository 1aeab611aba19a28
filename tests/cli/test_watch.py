"""`watch`: throughput, waiting jobs, and the latest failures; on a terminal and elsewhere."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from harasocial_dispatch.cli.commands.watch import Watcher
from harasocial_dispatch.cli.output.watch_views import live_view
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.schemas import State
from support.command_line import Jobs, read_line
from support.harness import DEADLINE_SECONDS, eventually, present

PAGE, OTHER_PAGE = "500725830264749", "600"
WINDOW_MEANING = "The messaging window is closed"
HOSTILE = "\x1b[31mred\x9b2J [bold]x[/bold]"


def test_a_snapshot_counts_the_changes_since_the_previous_one(jobs: Jobs) -> None:
    """The count is exact. The first snapshot has no previous one to compare with."""
    # given jobs that ended before the first read
    jobs.sent()
    jobs.failed()
    watcher = Watcher(jobs.ledger)
    first = watcher.read()
    assert (first.seconds, first.sent, first.failed) == (0, 0, 0)
    assert [record.error_code for record in first.failures] == ["10/2018278"]

    # when more end
    time.sleep(0.002)
    for _ in range(3):
        jobs.sent()
    jobs.failed("190")
    jobs.enqueue(page_id=OTHER_PAGE)

    # then these jobs are counted once
    second = watcher.read()
    assert (second.sent, second.failed) == (3, 1)
    assert second.rate(second.sent) == pytest.approx(3 / second.seconds)
    assert second.waiting == {OTHER_PAGE: 1}
    assert second.states[State.QUEUED] == 1
    assert [record.error_code for record in second.failures] == ["190", "10/2018278"]
    third = watcher.read()
    assert (third.sent, third.failed) == (0, 0)


def test_a_clock_that_was_set_back_counts_no_failure(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time between them is negative, which is not an error."""
    watcher = Watcher(jobs.ledger)
    first = watcher.read()
    jobs.failed()
    earlier_ms = round(first.at.timestamp() * 1000) - 60_000
    monkeypatch.setattr(jobs.ledger.reader, "now_ms", lambda: earlier_ms)
    assert watcher.read().failed == 0


def test_deleted_jobs_do_not_hide_sent_jobs(jobs: Jobs) -> None:
    """The number of kept jobs can be constant, and the last counted job can be deleted."""
    watcher = Watcher(jobs.ledger)
    for _ in range(2):
        jobs.sent()
    watcher.read()
    sent = f"{{{jobs.producer.settings.namespace}}}:sent"
    jobs.sent()
    jobs.ledger._client.rpop(sent)
    assert watcher.read().sent == 1
    jobs.sent()
    jobs.ledger._client.ltrim(sent, 0, 0)
    assert watcher.read().sent == 1


def start(program: list[str], *options: str) -> subprocess.Popen[str]:
    """Start `watch` with its output in a pipe."""
    return subprocess.Popen(
        [*program, "watch", "--every", "0.1", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )


def lines_until(process: subprocess.Popen[str], wanted: Callable[[str], bool]) -> list[str]:
    """Return the lines up to the first one that matches."""
    lines = [read_line(process)]
    while lines[-1] and not wanted(lines[-1]):
        lines.append(read_line(process))
    return lines


def test_elsewhere_it_prints_a_line_each_time_and_one_for_each_failure(
    program: list[str], jobs: Jobs
) -> None:
    """Failures have the meaning of the error code. Ctrl-C is not an error."""
    old = jobs.failed()
    process = start(program)
    (old_line,) = lines_until(process, lambda line: "failed:" in line)[-1:]
    assert old in old_line
    assert WINDOW_MEANING in old_line

    new = jobs.failed("4711", message="the API's own words", page_id=OTHER_PAGE)
    *ticks, new_line = lines_until(process, lambda line: new in line)
    process.send_signal(signal.SIGINT)
    rest, stderr = process.communicate(timeout=DEADLINE_SECONDS)
    assert OTHER_PAGE in new_line
    assert "the API's own words" in new_line
    assert all("sent 0.0/s" in tick for tick in ticks)
    assert "failed 0.0/s" not in ticks[-1]
    assert (old in rest, new in rest) == (False, False)
    assert (process.returncode, stderr) == (0, "")


def test_as_json_it_prints_an_object_each_time(program: list[str], jobs: Jobs) -> None:
    """The JSON has states and rates."""
    jobs.enqueue(page_id=OTHER_PAGE)
    process = start(program, "--json")
    first, second = json.loads(read_line(process)), json.loads(read_line(process))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0
    assert first["at"] < second["at"]
    assert (second["sent_per_second"], second["failed_per_second"]) == (0, 0)
    assert (second["states"]["queued"], second["waiting_by_page"]) == (1, {OTHER_PAGE: 1})
    assert second["paused"] == {}


def test_it_continues_after_a_stop_that_is_longer_than_its_interval(
    program: list[str], jobs: Jobs
) -> None:
    """After a delay, such as Ctrl-Z, the next update is immediate and raises no error."""
    process = start(program)
    lines_until(process, lambda line: "sent 0.0/s" in line)
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.5)
    process.send_signal(signal.SIGCONT)
    lines = [read_line(process) for _ in range(5)]
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=DEADLINE_SECONDS)
    assert all("sent 0.0/s" in line for line in lines)
    assert (process.returncode, stderr) == (0, "")


def test_redis_is_required_at_the_start_but_an_outage_is_tolerated(
    program: list[str], environment: pytest.MonkeyPatch
) -> None:
    """An outage at the start is an error. A later outage is printed once."""
    # given an unreachable Redis
    environment.setenv("HARASOCIAL_REDIS_URL", "redis://127.0.0.1:1/0")
    assert start(program).wait(DEADLINE_SECONDS) == 4

    # given a Redis that fails later
    with EmbeddedValkey() as server:
        environment.setenv("HARASOCIAL_REDIS_URL", server.url)
        process = start(program)
        lines_until(process, lambda line: "sent 0.0/s" in line)
    printed = present(process.stderr).readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, more = process.communicate(timeout=DEADLINE_SECONDS)

    # then a message is printed, and it waits
    assert "trying again" in printed
    assert (process.returncode, more) == (0, "")


def test_on_a_terminal_the_view_is_updated_in_place(program: list[str], jobs: Jobs) -> None:
    """The view has all data, sanitizes hostile texts, and restores the cursor at the end."""
    jobs.enqueue(page_id=OTHER_PAGE)
    jobs.end(State.RETRYING)
    job_id = jobs.failed()
    jobs.failed(HOSTILE, message=HOSTILE)
    jobs.enqueue(page_id=OTHER_PAGE)
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", COLUMNS="150", LINES="40")
        os.execv(program[0], [*program, "watch", "--every", "0.1"])
    seen = b""

    def read() -> bytes:
        nonlocal seen
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                seen += os.read(terminal, 65536)
            except OSError:  # Linux raises EIO when the other end is closed
                return b"end"
        return b""

    # when the view was drawn twice
    eventually(lambda: read() or seen.count(b"Ctrl-C ends") >= 2)
    os.kill(pid, signal.SIGINT)
    eventually(lambda: read() == b"end")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)

    # then it is complete, and the second view replaced the first
    text = seen.decode()
    assert os.waitstatus_to_exitcode(status) == 0
    assert "queued 1   retrying 1" in text
    assert f"{OTHER_PAGE}  " in text
    assert job_id in text
    assert WINDOW_MEANING in text
    assert "[bold]x[/bold]" in text
    assert "\x1b[31mred" not in text
    assert "\x9b" not in text
    assert "\x1b[1A" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_without_rich_a_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package rich is optional."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert live_view("", "en") is not None
    monkeypatch.setitem(sys.modules, "rich.live", None)
    assert live_view("", "en") is None
