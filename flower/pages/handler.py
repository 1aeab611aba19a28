"""The base of all handlers: Flower's login and style, safe headers, and error pages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from tornado.web import HTTPError, RequestHandler

from ...ledger import Cursor, Pause
from ...schemas import InvalidRequest, QueueUnavailable
from ...schemas.language import Language
from .. import presentation
from ..assets import address_of
from ..filters import FailureFilter, InvalidFilter, read_time
from ..gate import login_of
from ..language import LANGUAGE_NAMES, as_language, preferred_language
from ..site import Site

if TYPE_CHECKING:
    from tornado.web import RequestHandler as FlowerHandler  # Flower ships no types
else:
    from flower.views import BaseHandler as FlowerHandler

T = TypeVar("T")

#: Number of jobs on one page of a list.
PAGE_SIZE = 25
#: The cookie with the chosen language.
LANGUAGE_COOKIE = "harasocial_language"
#: The Retry-After header while Redis is not available.
_RETRY_AFTER_SECONDS = 5
#: All files come from this host. Framing and inline scripts are not allowed.
_CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)


class PageHandler(FlowerHandler):
    """A handler that reads the ledger. All handlers share one `site`."""

    site: Site
    #: The link of the navigation bar that is shown as active.
    active_tab = "failures"

    def initialize(self, site: Site) -> None:
        self.site = site

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Content-Security-Policy", _CONTENT_POLICY)
        self.set_header("Referrer-Policy", "same-origin")
        # The pages have personal data.
        self.set_header("Cache-Control", "no-store")

    def check_xsrf_cookie(self) -> None:
        # Flower checks the XSRF token only with some kinds of login. These forms need it always.
        RequestHandler.check_xsrf_cookie(self)

    async def prepare(self) -> None:
        #: The pause of all pages; shown on every page.
        self.pause_of_all: Pause | None = None
        if self.request.method == "GET":
            self.pause_of_all = await self.ask(self.site.ledger.reader.pause_of_all)

    async def ask(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function of the ledger in a thread, so that it does not block other requests."""
        loop = self.application.io_loop  # type: ignore[attr-defined]  # Flower's application
        try:
            return await loop.run_in_executor(self.site.threads, lambda: function(*args, **kwargs))  # type: ignore[no-any-return]
        except QueueUnavailable as error:
            raise HTTPError(503, f"{error}.") from None
        except InvalidRequest as error:
            raise HTTPError(400, str(error)) from None

    @property
    def operator(self) -> str:
        """The user name for the audit; "Flower" if there is no login."""
        # Flower returns the account with OAuth, and True with other logins.
        if isinstance(self.current_user, str):
            return self.current_user
        return login_of(self.request) or "Flower"

    @property
    def language(self) -> Language:
        """The language of explanations: the user's choice, else the browser's preference."""
        chosen = as_language(self.get_cookie(LANGUAGE_COOKIE))
        return chosen or preferred_language(self.request.headers.get("Accept-Language", ""))

    def text_argument(self, name: str) -> str:
        """Return a parameter as it was sent (not escaped); "" if it is missing."""
        return RequestHandler.get_argument(self, name, "") or ""

    def text_arguments(self, name: str) -> list[str]:
        """Return all values of a parameter as they were sent (not escaped)."""
        return RequestHandler.get_arguments(self, name)

    def time_argument(self, name: str) -> datetime | None:
        """Return a time of the request (aware); None if it is missing."""
        try:
            return read_time(name, self.text_argument(name))
        except InvalidFilter as error:
            raise HTTPError(400, str(error)) from None

    def read_filter(self) -> FailureFilter:
        """Return the filter of the request."""
        try:
            return FailureFilter.read(self.text_arguments)
        except InvalidFilter as error:
            raise HTTPError(400, str(error)) from None

    def read_cursor(self) -> Cursor | None:
        """Return the position where the list continues; None means its beginning."""
        text = self.text_argument("after")
        try:
            return Cursor.parse(text) if text else None
        except ValueError as error:
            raise HTTPError(400, str(error)) from None

    def forbid_if_read_only(self) -> None:
        """Refuse changes if Flower was started with --read-only."""
        if self.site.read_only:
            raise HTTPError(403, "Flower was started with --read-only: nothing can be changed.")

    def get_template_namespace(self) -> dict[str, Any]:
        names = super().get_template_namespace()
        return names | {
            "active_tab": self.active_tab,
            "asset": lambda name: self.reverse_url("failures-asset", name) + address_of(name),
            "duration": presentation.duration,
            "error_message": presentation.error_message,
            "facts": presentation.facts,
            "jobs": presentation.jobs,
            "language": self.language,
            "language_names": LANGUAGE_NAMES,
            "number": presentation.number,
            "page_size": PAGE_SIZE,
            "pause_of_all": getattr(self, "pause_of_all", None),
            "pause_reason": presentation.pause_reason,
            "pause_target": presentation.pause_target,
            "pause_remedy": presentation.pause_remedy,
            "rate_text": presentation.rate_text,
            "shown": presentation.shown,
            "state_colors": presentation.STATE_COLORS,
            "stored_time_html": presentation.stored_time_html,
            "time_html": presentation.time_html,
            "may_change": not self.site.read_only,
        }

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        if status_code == 401 or not isinstance(error, HTTPError):
            super().write_error(status_code, **kwargs)
            return
        if not hasattr(self, "_current_user"):
            # As in Flower, an error page requires no login.
            self.current_user = None
        if status_code == 503:
            self.set_header("Retry-After", str(_RETRY_AFTER_SECONDS))
        self.render("failures_error.html", status=status_code, message=error.get_message())
