"""Every endpoint fault has one outcome, within time and memory limits, with one request at most.

Each call is made as in a worker, in a process whose memory is measured.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from harasocial_dispatch.sandbox import Sandbox
from harasocial_dispatch.schemas import State
from support.caller import Caller, error_code
from support.endpoint_faults import FAULTS, Fault, Place, dripping
from support.harness import free_port
from support.scripted_server import Script, ScriptedServer, reply, steps, tls_context

TESTS = Path(__file__).parents[1]

#: Deadline (`CALL_DEADLINE_SECONDS`) of calls that reach it, and extra seconds for a busy machine.
DEADLINE_SECONDS, MARGIN_SECONDS = 1.5, 4.0
#: Deadline of all other calls. It is long, so that a busy machine causes no timeout.
FAR_DEADLINE_SECONDS = 10.0
#: Time for the process to start, which imports much, and to make a call.
GIVE_UP_SECONDS = 90.0
#: Maximum additional resident memory (kilobytes) during one call.
MOST_KILOBYTES = 8 * 1024

PAYLOAD = "__hrf_f_1"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def tls_endpoint() -> Iterator[Sandbox]:
    with Sandbox(tls=tls_context()) as sandbox:
        yield sandbox


class Measurer:
    """A process that makes calls and measures them. See `caller.measured`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, api_url: str, payload_id: str = PAYLOAD, **options: Any) -> dict[str, Any]:
        """Make a call in the process. Return the result of `caller.measured`."""
        if self._process is None:
            self._start()
            # Make a first call, so that the memory for imports is not counted.
            self(f"http://127.0.0.1:{free_port()}/")
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        question = {
            "api_url": api_url,
            "payload_id": payload_id,
            "delivery": "at_least_once",
            "deadline_seconds": DEADLINE_SECONDS,
            "settings": {},
            **options,
        }
        self._process.stdin.write(json.dumps(question) + "\n")
        answered, _, _ = select.select([self._process.stdout], [], [], GIVE_UP_SECONDS)
        if not answered:
            self.kill()
            pytest.fail("the call did not end")
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.caller"],
            cwd=TESTS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def kill(self) -> None:
        """End the process. The next call starts it again."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@pytest.fixture(scope="module")
def measure() -> Iterator[Measurer]:
    measurer = Measurer()
    yield measurer
    measurer.kill()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_endpoint_fault_has_one_outcome_within_time_and_memory_limits(
    fault: Fault, measure: Measurer, endpoint: Sandbox, tls_endpoint: Sandbox
) -> None:
    """Promises 4, 5 and 11: outcome class, error code, state, and limits of time and memory."""
    # given a faulty endpoint
    endpoint.reset()
    with ExitStack() as stack:
        payload_id, raw = PAYLOAD, None
        settings: dict[str, Any] = {}
        match fault.endpoint:
            case str(payload_id):
                url = endpoint.url
            case Place() as place:
                url, settings = where(place, stack, endpoint, tls_endpoint)
            case script:
                raw = stack.enter_context(ScriptedServer(script))
                url = raw.url

        # when one call is made
        ended = measure(
            url,
            payload_id,
            delivery=fault.delivery,
            settings=settings,
            deadline_seconds=DEADLINE_SECONDS if fault.reaches_deadline else FAR_DEADLINE_SECONDS,
        )

        # then it has the expected outcome
        found = (ended["outcome_class"], ended["error_code"], ended["state"])
        assert found == (fault.outcome_class, fault.error_code, fault.expected_state), ended
        if fault.pause_seconds is not None:
            assert ended["pause_seconds"] == pytest.approx(fault.pause_seconds)
        # … within the limits of time and memory
        least = DEADLINE_SECONDS if fault.reaches_deadline else 0.5
        assert ended["seconds"] < least + MARGIN_SECONDS
        assert ended["kilobytes"] < MOST_KILOBYTES
        # … and the request was sent at most once.
        posts = endpoint.totals().posts if raw is None else len(raw.requests)
        assert posts <= 1
        assert endpoint.totals().redirected == 0


def where(
    place: Place, stack: ExitStack, endpoint: Sandbox, tls_endpoint: Sandbox
) -> tuple[str, dict[str, Any]]:
    """Yield the URL of a place, and the settings for it."""

    def proxy(script: Script) -> dict[str, Any]:
        return {"proxy_url": stack.enter_context(ScriptedServer(script)).root_url}

    nowhere = "https://127.0.0.1:1/social/messages.json"
    dripping_proxy = dripping(b"HTTP/1.1 200 Connection established\r\n", b"A: b\r\n")
    match place:
        case Place.DOWN:
            return f"http://127.0.0.1:{free_port()}/", {}
        case Place.SELF_SIGNED:
            return tls_endpoint.url, {}
        case Place.PLAIN_INSTEAD_OF_TLS:
            return endpoint.url.replace("http:", "https:"), {}
        case Place.TLS_INSTEAD_OF_PLAIN:
            return tls_endpoint.url.replace("https:", "http:"), {}
        case Place.TLS_THAT_NEVER_ANSWERS:
            return f"https://127.0.0.1:{stack.enter_context(listening())}/", {}
        case Place.TLS_THAT_RESETS:
            return f"https://127.0.0.1:{stack.enter_context(listening(resets=True))}/", {}
        case Place.PROXY_THAT_DRIPS:
            return nowhere, proxy(dripping_proxy)
        case Place.PROXY_THAT_REFUSES:
            return nowhere, proxy(steps(reply(b"", status="403 Forbidden")))


@contextmanager
def listening(*, resets: bool = False) -> Iterator[int]:
    """Yield a port where connections get no reply, or where the first one is reset."""

    def reset() -> None:
        connection, _ = listener.accept()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        if resets:
            threading.Thread(target=reset, daemon=True).start()
        yield listener.getsockname()[1]


def test_an_endpoint_is_used_again_after_an_outage(measure: Measurer) -> None:
    """Calls during the outage are transient failures. The next call is accepted."""
    with Sandbox() as resting:
        assert measure(resting.url)["state"] == "sent"
        resting.down()
        away = [measure(resting.url) for _ in range(3)]
        resting.up()
        back = measure(resting.url)

    assert {ended["error_code"] for ended in away} == {"connection_failed"}
    assert back["state"] == "sent"
    assert resting.totals().posts == 2


def test_each_call_during_5xx_errors_is_one_transient_outcome(endpoint: Sandbox) -> None:
    """A hundred calls are a hundred POSTs, without automatic retries. Then calls succeed again."""
    endpoint.reset()
    with Caller(endpoint.url) as caller:
        endpoint.fail_with(503)
        stormy = {(error_code(r), r.job_verdict.state) for r in (caller.send() for _ in range(100))}
        endpoint.fail_with(None)
        calm = caller.send()

    assert stormy == {("http_503", State.RETRYING)}
    assert calm.job_verdict.state is State.SENT
    assert endpoint.totals().posts == 101
