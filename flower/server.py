"""Flower's web server: the gate checks every request, and every reply gets safe headers."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from flower import urls
from flower.views.monitor import Healthcheck
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.netutil import bind_sockets, bind_unix_socket
from tornado.web import OutputTransform, RequestHandler, StaticFileHandler, stream_request_body

from .gate import Gate, Login, Refusal
from .late_events import ignore_late_events
from .pages.metrics import MetricsHandler

if TYPE_CHECKING:
    from tornado.web import Application as FlowerApplication  # Flower ships no types
else:
    from flower.app import Flower as FlowerApplication

#: Maximum size of a request body. A form that selects jobs has a few thousand bytes.
_MAX_BODY_BYTES = 1024 * 1024
#: Timeouts for an idle connection, and for reading a body.
_IDLE_SECONDS = 120.0
_BODY_SECONDS = 30.0


class GuardedFlower(FlowerApplication):
    """Flower's application with the gate."""

    events: Any
    options: Any
    ssl_options: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        ignore_late_events(self.events)
        options = self.options
        self._gate = Gate(
            options.basic_auth or [],
            is_local_only=not (options.basic_auth or options.auth or options.unix_socket),
            cookie_secret=self.settings["cookie_secret"],
        )
        # Flower's debug log prints this value. The application has a copy.
        for name in ("cookie_secret", "oauth"):
            urls.settings.pop(name, None)
        self.transforms.append(lambda request: SafeHeaders(request, self._gate))  # type: ignore[arg-type]  # a class is called the same way

    def get_handler_delegate(
        self, request: HTTPServerRequest, target_class: type[RequestHandler], *args: Any, **kw: Any
    ) -> Any:
        """Return the handler of a request, or a handler that refuses it."""
        refusal = self._gate.refusal(request, _login_of(target_class))
        if refusal is not None:
            return super().get_handler_delegate(request, Refused, {"refusal": refusal})
        return super().get_handler_delegate(request, target_class, *args, **kw)

    def start_http_server(self) -> int | None:
        """Listen as Flower does, with limits. Return the port, or None for a Unix socket."""
        options = self.options
        server = HTTPServer(
            self,
            xheaders=options.xheaders,
            ssl_options=None if options.unix_socket else self.ssl_options,
            idle_connection_timeout=_IDLE_SECONDS,
            body_timeout=_BODY_SECONDS,
            max_body_size=_MAX_BODY_BYTES,
            max_buffer_size=_MAX_BODY_BYTES,
        )
        if options.unix_socket:
            has_login = bool(options.basic_auth or options.auth)
            server.add_socket(_bind(options.unix_socket, mode=0o660 if has_login else 0o600))
            return None
        sockets = bind_sockets(options.port, address=options.address)
        server.add_sockets(sockets)
        port: int = sockets[0].getsockname()[1]
        return port


@stream_request_body
class Refused(RequestHandler):
    """Refuses a request as soon as its headers are read, and ignores the body."""

    def initialize(self, refusal: Refusal) -> None:
        self._refusal = refusal

    def check_xsrf_cookie(self) -> None:
        """Accept any arguments, and do nothing."""

    def prepare(self) -> None:
        self.set_status(self._refusal.status)
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        for name, value in self._refusal.headers.items():
            self.set_header(name, value)
        self.finish(self._refusal.message)

    def data_received(self, chunk: bytes) -> None:
        """Ignore a part of the body."""


class SafeHeaders(OutputTransform):
    """Sets headers that prevent other sites from using a response."""

    def __init__(self, request: HTTPServerRequest, gate: Gate) -> None:
        self._request, self._gate = request, gate

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        # With FLOWER_UNAUTHENTICATED_API, Flower allows every site to read all pages, including
        # our pages.
        for name in [name for name in headers if name.startswith("Access-Control-")]:
            del headers[name]
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("Content-Security-Policy", "frame-ancestors 'none'")
        headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        new_cookie = self._gate.new_cookie(self._request)
        if new_cookie is not None and status_code < 400:
            headers.add("Set-Cookie", new_cookie)
        return status_code, headers, chunk


def _login_of(handler: type[RequestHandler]) -> Login:
    if issubclass(handler, (StaticFileHandler, Healthcheck)):
        return Login.IGNORED
    return Login.OPTIONAL if issubclass(handler, MetricsHandler) else Login.REQUIRED


def _bind(path: str, *, mode: int) -> socket.socket:
    """Return a listening Unix socket whose permissions never exceed `mode`."""
    before = os.umask(0o777 & ~mode)
    try:
        return bind_unix_socket(path, mode=mode)
    finally:
        os.umask(before)
