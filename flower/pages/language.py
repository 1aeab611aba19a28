"""`/failures/language`: choose the language of explanations."""

from __future__ import annotations

from urllib.parse import urlsplit

from tornado.web import HTTPError, authenticated

from ..language import LANGUAGE_NAMES, as_language
from .handler import LANGUAGE_COOKIE, PageHandler

_KEPT_DAYS = 365


class LanguageHandler(PageHandler):
    """A POST stores a language in a cookie, and redirects back to the previous page."""

    @authenticated
    async def post(self) -> None:
        language = as_language(self.text_argument("language"))
        if language is None:
            raise HTTPError(400, f"The supported languages are {', '.join(LANGUAGE_NAMES)}.")
        self.set_cookie(
            LANGUAGE_COOKIE,
            language,
            expires_days=_KEPT_DAYS,
            httponly=True,
            samesite="Lax",
            secure=self.request.protocol == "https",
        )
        self.redirect(
            _path_on_this_host(self.text_argument("next")) or self.reverse_url("failures")
        )


def _path_on_this_host(address: str) -> str | None:
    """Return the address if it is a path of this server, or None."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return None
    is_path = address.startswith("/") and not address.startswith("//") and "\\" not in address
    return address if is_path and address.isprintable() and not parts.netloc else None
