"""The sandbox's life: start and stop, up and down, and the view of what it received."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any, TypeVar

from .contract import ANY_PAGE, PATH
from .endpoint import Endpoint
from .journal import Journal, RawRequest, ReceivedJob, Totals
from .listener import Listener
from .switches import DEFAULT_TOKEN, Switches

T = TypeVar("T")

#: Addresses to listen on that are no addresses to connect to.
_ANY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


class Sandbox:
    """A stand-in for the Harasocial endpoint, on a thread of its own.

        with Sandbox() as sandbox:
            ...  # POST to sandbox.url
            assert sandbox.totals().accepted == 1

    Args:
        host: the address to listen on.
        port: the port to listen on; 0 for one that is free.
        tokens: page_id, or `*` for every page not named, → the token that is right for it.
        tls: a server's context, to speak HTTPS.
        keep_requests: how many of the last requests are kept byte for byte.

    Every method may be called from any thread, and the counts also after the stop.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        tokens: Mapping[str, str] | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        keep_requests: int = 1000,
    ) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        given = {ANY_PAGE: DEFAULT_TOKEN} if tokens is None else tokens
        self._journal = Journal(keep_requests)
        self._endpoint = Endpoint(Switches(tokens=given), self._journal)
        self._listener = Listener(self._endpoint, tls)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    # Start and stop.

    def start(self) -> Sandbox:
        """Listen, and return self.

        Raises:
            OSError: if the address cannot be listened on, for example because it is in use.
            RuntimeError: if it was started before and not stopped.
        """
        if self._thread is not None:
            raise RuntimeError("the sandbox is started already")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="harasocial-sandbox", daemon=True
        )
        self._thread.start()
        try:
            self._run(self._listen())
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Close every connection and the thread. What was received can still be read."""
        if self._thread is None or self._loop is None:
            return
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._thread = self._loop = None

    def __enter__(self) -> Sandbox:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # Where it is.

    @property
    def host(self) -> str:
        """The address to connect to."""
        return _ANY_ADDRESS.get(self._host, self._host)

    @property
    def port(self) -> int:
        """The port listened on; it stays the same over `down`, `up` and a further start."""
        if not self._port:
            raise RuntimeError("the sandbox was not started, so its port is not known")
        return self._port

    @property
    def root_url(self) -> str:
        """The URL before any path, such as `http://127.0.0.1:41523`."""
        scheme = "http" if self._tls is None else "https"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL to POST messages to: the value for `HARASOCIAL_API_URL`."""
        return self.root_url + PATH

    # Switches.

    @property
    def tokens(self) -> Mapping[str, str]:
        """The tokens, page_id or `*` → token; assign a mapping to replace them all."""
        return self._endpoint.switches.tokens

    @tokens.setter
    def tokens(self, tokens: Mapping[str, str]) -> None:
        self._switch(tokens=tokens)

    @property
    def latency_seconds(self) -> float:
        """Seconds that every POST waits for its reply; assign to change."""
        return self._endpoint.switches.latency_seconds

    @latency_seconds.setter
    def latency_seconds(self, seconds: float) -> None:
        self._switch(latency_seconds=seconds)

    def fail_with(self, status: int | None) -> None:
        """Answer every POST with `status`, 200 to 599, from now on; with None, no longer."""
        self._switch(fail_with=status)

    def _switch(self, **changes: Any) -> None:
        self._endpoint.switches = self._endpoint.switches.changed(changes)

    def down(self) -> None:
        """Refuse connections, as a stopped server does. Replies under way are finished first."""
        self._run(self._unlisten())

    def up(self) -> None:
        """Listen again, on the same port.

        Raises:
            OSError: if the port was taken by another program meanwhile.
        """
        self._run(self._listen())

    # What was received.

    def totals(self) -> Totals:
        """Return the counts over all jobs."""
        return self._journal.totals()

    def jobs(self, **fields: str | None) -> list[ReceivedJob]:
        """Return the jobs received, in the order of their first POSTs.

        Keywords choose among them: `sandbox.jobs(page_id="1", payload_id="sandbox:ok")`.
        """
        return [
            job
            for job in self._journal.jobs()
            if all(getattr(job, name) == value for name, value in fields.items())
        ]

    def requests(self) -> list[RawRequest]:
        """Return the last requests byte for byte, oldest first; tokens are not masked."""
        return self._journal.requests()

    def reset(self) -> None:
        """Forget what was received. The switches stay as they are."""
        self._journal.reset()

    # On the loop's thread.

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            coroutine.close()
            raise RuntimeError("the sandbox is not started")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _listen(self) -> None:
        self._port = self._listener.open(self._host, self._port)

    async def _unlisten(self) -> None:
        self._listener.close()

    async def _close(self) -> None:
        await self._listener.abort()
        replies = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*replies, return_exceptions=True)
