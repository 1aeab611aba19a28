"""The start of Flower: never open by mistake, and always with our pages."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner
from flower.options import options as flower_options
from harasocial_dispatch.cli import commands
from harasocial_dispatch.cli.commands.flower import _joined
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.schemas import Settings
from support.flower_harness import LOGIN, PASSWORD, USER, StartFlower, fail_job, new_page_id
from support.harness import environment, present
from support.processes import PROGRAMS, run_program

each_command = pytest.mark.parametrize("command", PROGRAMS)


def run(
    settings: Settings, folder: Path, command: str, *options: str, **changes: Any
) -> subprocess.CompletedProcess[str]:
    """Run Flower and return its exit status and output."""
    env = environment(settings, "http://127.0.0.1:9", **changes)
    return run_program(*PROGRAMS[command], "flower", *options, env=env, cwd=folder)


@pytest.mark.parametrize(
    ("command", "address"), [("celery", ""), ("harasocial-dispatch", "0.0.0.0")]
)
def test_a_public_address_without_a_login_is_rejected(
    settings: Settings, tmp_path: Path, command: str, address: str
) -> None:
    """One line names the setting, and the exit status is 2."""
    ended = run(settings, tmp_path, command, f"--address={address}", "--port=0")
    assert ended.returncode == 2
    assert ended.stderr.startswith("Error: Flower would listen on ")
    assert "HARASOCIAL_FLOWER_BASIC_AUTH" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_it_does_not_start_with_a_short_password(settings: Settings, tmp_path: Path) -> None:
    """The rule also applies on this host, and the error does not quote the password."""
    ended = run(settings, tmp_path, "celery", FLOWER_BASIC_AUTH="admin:admin1234567")
    assert ended.returncode == 2
    assert "at least 15" in ended.stderr
    assert "admin1234567" not in ended.stderr


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--basic-auht=a:b"], "no option '--basic-auht'"),
        (["--port"], "needs a value"),
        (["--address", "--read-only"], "needs a value"),
        (["5555"], "no option '5555'"),
        (["--port", "abc"], "--port needs a whole number up to 65535, not 'abc'"),
        (["--inspect-timeout=soon"], "needs a number"),
        (["--port=99999"], "--port needs a whole number up to 65535, not '99999'"),
    ],
)
def test_a_misspelled_option_is_an_error(options: list[str], complaint: str) -> None:
    """Flower itself would ignore the option, and so start without the login."""
    ended = CliRunner().invoke(commands, ["flower", *options])
    assert ended.exit_code == 2
    assert complaint in ended.output


def test_a_port_in_use_is_an_error(settings: Settings, tmp_path: Path) -> None:
    """The error has a remedy and no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run(settings, tmp_path, "harasocial-dispatch", f"--port={port}")
    assert ended.returncode == 2
    assert "Flower cannot listen there: Address already in use" in ended.stderr
    assert "--port" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_option_with_several_numbers_is_accepted() -> None:
    """Flower reads the option. A space instead of the equals sign works too."""
    given = ["--task-runtime-metric-buckets", "0.5,2", "--port=5555", "--read-only"]
    assert list(_joined(given, flower_options)) == [
        "--task-runtime-metric-buckets=0.5,2", "--port=5555", "--read-only"]  # fmt: skip


def test_the_help_lists_the_options() -> None:
    """The help has Flower's most important options."""
    shown = CliRunner().invoke(commands, ["flower", "--help"]).output
    for option in ("--port", "--address", "--basic-auth", "--read-only", "/failures"):
        assert option in shown


@each_command
def test_the_failures_page_is_available_with_every_start_command(
    start_flower: StartFlower, ledger: Ledger, command: str
) -> None:
    """The navigation bar has the link, the login is required, and Flower's controls are off."""
    job_id = fail_job(ledger, page_id=new_page_id())
    flower = start_flower(command=command, new_interpreter=True)
    assert job_id in flower.get("/failures").text
    assert 'href="/failures"' in flower.get("/workers").text
    assert flower.get("/failures", auth=None).status_code == 401
    revoked = flower.post(f"/api/task/revoke/{job_id}", {})
    assert (revoked.status_code, revoked.text) == (403, "Read only mode is enabled")


def test_options_may_be_written_with_a_space(start_flower: StartFlower) -> None:
    """`--name value` works, although Flower itself only accepts `--name=value`."""
    flower = start_flower("--address", "127.0.0.1", "--tasks_columns", "name,state")
    assert flower.get("/tasks").text.count("<th data-column") == 2


def test_without_a_login_it_answers_only_on_this_host(
    start_flower: StartFlower, ledger: Ledger
) -> None:
    """A request by DNS rebinding has the name of another host."""
    job_id = fail_job(ledger, page_id=new_page_id())
    flower = start_flower(FLOWER_BASIC_AUTH=None)
    for host in (None, f"localhost:{flower.port}", f"[::1]:{flower.port}"):
        headers = {"Host": host} if host else {}
        assert flower.get("/failures", auth=None, headers=headers).status_code == 200
    strange = flower.get("/failures", auth=None, headers={"Host": "rebound.example"})
    assert strange.status_code == 403
    assert job_id not in strange.text
    # Its forms still require the token.
    url = f"{flower.url}/failures/{job_id}"
    assert requests.post(url, data={"action": "replay"}, timeout=30).status_code == 403


def test_read_only_applies_to_our_pages(start_flower: StartFlower, ledger: Ledger) -> None:
    """With --read-only, pages have no buttons, and forms are rejected."""
    job_id = fail_job(ledger, page_id=new_page_id())
    flower = start_flower("--read-only")
    for path in ("/failures", f"/failures/{job_id}", "/pages/70000"):
        page = flower.get(path)
        assert page.status_code == 200
        assert re.search("<button[^>]*>(Replay|Pause|Set)", page.text) is None
    for path, fields in [
        (f"/failures/{job_id}", {"action": "replay"}),
        ("/failures/replays", {"what": "filter"}),
        ("/failures/waiting", {"job_id": job_id}),
        ("/overview/page", {"action": "pause"}),
        ("/cancellations", {"page_id": "70000"}),
    ]:
        refused = flower.post(path, fields)
        assert (refused.status_code, "--read-only" in refused.text) == (403, True)
    assert str(present(ledger.reader.get(job_id)).state) == "failed"


def test_flowers_own_controls_can_be_enabled(start_flower: StartFlower, ledger: Ledger) -> None:
    """With Flower's controls, our controls work too."""
    job_id = fail_job(ledger, page_id=new_page_id())
    flower = start_flower("--read-only=false")
    assert flower.post(f"/api/task/revoke/{job_id}", {}).status_code == 200
    assert ">Replay…</button>" in flower.get(f"/failures/{job_id}").text


def test_a_prefix_is_kept_in_every_link(start_flower: StartFlower, ledger: Ledger) -> None:
    """A proxy can serve Flower under a path prefix."""
    job_id = fail_job(ledger, page_id=new_page_id())
    flower = start_flower("--url-prefix=watch")
    paths = ("failures", f"failures/{job_id}", "failures/waiting", "pages/70000", "audit")
    for path in (f"/watch/{path}" for path in paths):
        page = flower.get(path)
        assert page.status_code == 200
        assert 'href="/failures' not in page.text
        assert 'action="/failures' not in page.text
        assert '"/watch/failures/static/failures.css' in page.text
    assert flower.get("/watch/failures/static/failures.css").status_code == 200


def test_flowers_own_variables_work(
    start_flower: StartFlower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flower's variables override our defaults."""
    monkeypatch.setenv("FLOWER_BASIC_AUTH", f"{USER}2:{PASSWORD}2")
    flower = start_flower()
    assert flower.get("/failures").status_code == 401
    assert flower.get("/failures", auth=(f"{USER}2", f"{PASSWORD}2")).status_code == 200
    assert (f"{USER}2", f"{PASSWORD}2") != LOGIN
