"""Send observations from child processes to the main process: datagrams on a socket pair.

The pair is created before the pool and inherited over fork. So it has no path, and leaves no file
behind. A datagram arrives completely or not at all, and the kernel keeps it if its sender is
killed.
"""

from __future__ import annotations

import errno
import json
import logging
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

from .observations import Observation

#: Maximum observations per datagram, and a sufficient buffer for them (bytes).
_DATAGRAM_OBSERVATIONS, _DATAGRAM_BYTES = 100, 64 * 1024
#: Maximum observations that a process keeps while the main process does not read. Then it drops the
#: oldest ones.
MAX_KEPT = 20_000
#: Timeout for the main process in a flush.
_FLUSH_TIMEOUT_SECONDS = 0.05

logger = logging.getLogger(__name__)


class Channel:
    """The socket pair, created by the main process.

    Args:
        add: called in a thread of the main process with received observations.
    """

    def __init__(self, add: Callable[[Iterable[Observation]], None]) -> None:
        self._add = add
        self._reading, self._writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        # The default limit of macOS is smaller.
        self._writing.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _DATAGRAM_BYTES)
        self._reading.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _DATAGRAM_BYTES)
        self._thread = threading.Thread(target=self._read, name="observations", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while data := self._reading.recv(_DATAGRAM_BYTES):
            self._add(json.loads(data))

    def stop(self) -> None:
        """Stop the main process's thread, after all received observations were added."""
        self._writing.settimeout(None)
        self._writing.send(b"")
        self._thread.join(timeout=5)
        self._reading.close()
        self._writing.close()

    def sender(self) -> ObservationSender:
        """Return the writing end in a child process, and close the reading end there."""
        self._reading.close()
        return ObservationSender(self._writing)


class ObservationSender:
    """The writing end. Thread-safe. It never blocks for long and never raises."""

    def __init__(self, writing: socket.socket) -> None:
        self._socket = writing
        self._lock = threading.Lock()
        self._kept: deque[Observation] = deque(maxlen=MAX_KEPT)
        self._warned = False

    def add(self, observations: Iterable[Observation]) -> None:
        """Send observations. If the socket is full, send the rest with the next ones."""
        with self._lock:
            self._kept.extend(observations)
            self._send(socket.MSG_DONTWAIT)

    def flush(self) -> None:
        """Send the observations that are still kept."""
        with self._lock:
            self._socket.settimeout(_FLUSH_TIMEOUT_SECONDS)
            self._send(0)

    def _send(self, flags: int) -> None:
        while self._kept:
            part = list(islice(self._kept, _DATAGRAM_OBSERVATIONS))
            try:
                self._socket.send(json.dumps(part, ensure_ascii=False).encode(), flags)
            except (BlockingIOError, TimeoutError):
                return
            except OSError as error:
                # macOS reports a full buffer with this error. Other errors mean that the main
                # process has ended.
                if error.errno != errno.ENOBUFS and not self._warned:
                    logger.warning(
                        "the counts of this process do not reach the metrics: %s",
                        error.strerror,
                        extra={"action": "metrics_unsent"},
                    )
                    self._warned = True
                return
            for _ in part:
                self._kept.popleft()
