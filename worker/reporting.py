"""How the tallies of a worker's processes reach its main one: datagrams on a Unix socket.

Its path is in the environment, so that processes find it however they were started. A datagram
arrives whole or not at all; what the socket does not take is kept, and goes with the next. So the
sum stays exact, also when processes end and others take their places.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from .tally import Tally

#: A busy process reports this often, in seconds.
REPORT_EVERY_SECONDS = 0.25
#: How long (seconds) a flush waits for the main process to take it.
_FLUSH_SECONDS = 0.05

_VARIABLE = "_HARASOCIAL_METRICS_SOCKET"
#: Rows of one datagram, and the bytes that they surely fit in.
_ROWS, _BYTES = 100, 64 * 1024

logger = logging.getLogger(__name__)


class Receiver:
    """The main process's end.

    Args:
        add: called, in a thread, with each tally that arrives.

    Raises:
        OSError: there is no place for the socket.
    """

    def __init__(self, add: Callable[[Tally], None]) -> None:
        self._add = add
        # Nobody else may enter it.
        self._folder = Path(tempfile.mkdtemp(prefix="harasocial-"))
        self._path = str(self._folder / "metrics")
        self._socket = _datagrams()
        try:
            self._socket.bind(self._path)
        except OSError:
            self.close()
            raise
        os.environ[_VARIABLE] = self._path
        self._thread = threading.Thread(target=self._run, name="tallies", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while data := self._socket.recv(_BYTES):
            self._add(Counter({tuple(key): count for *key, count in json.loads(data)}))

    def stop(self) -> None:
        """Take no more."""
        os.environ.pop(_VARIABLE, None)
        with _datagrams() as last:
            last.sendto(b"", self._path)
        self._thread.join(timeout=5)
        self.close()

    def close(self) -> None:
        """Close the socket and remove its folder."""
        self._socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class Reporter:
    """A child process's end. Safe to share between threads; never blocks for long, never raises."""

    def __init__(self) -> None:
        self._path = os.environ.get(_VARIABLE, "")
        self._socket = _datagrams()
        self._lock = threading.Lock()
        self._kept: Tally = Counter()
        self._next_at = 0.0
        self._told = False

    def add(self, tally: Tally) -> None:
        """Take a tally; it is sent soon."""
        with self._lock:
            self._kept.update(tally)
            if time.monotonic() >= self._next_at:
                self._send(wait_seconds=0.0)

    def flush(self) -> None:
        """Send what is kept."""
        with self._lock:
            if self._kept:
                self._send(wait_seconds=_FLUSH_SECONDS)

    def _send(self, *, wait_seconds: float) -> None:
        self._next_at = time.monotonic() + REPORT_EVERY_SECONDS
        self._socket.settimeout(wait_seconds)
        rows = list(self._kept.items())
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            try:
                self._socket.sendto(
                    json.dumps([[*key, count] for key, count in part]).encode(), self._path
                )
            except (BlockingIOError, TimeoutError):
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # how macOS says that the other end is behind
                    self._tell(error)
                return
            for key, _ in part:
                del self._kept[key]

    def _tell(self, error: OSError) -> None:
        # The main process is ending; or somebody has tidied up its temporary folder.
        if not self._told:
            logger.warning(
                "what this process counts does not reach the metrics: %s",
                error.strerror,
                extra={"action": "metrics_unsent"},
            )
        self._told = True


def _datagrams() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    # Where the system's own limit is smaller than a whole datagram of ours (macOS).
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BYTES)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BYTES)
    return made
