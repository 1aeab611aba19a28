"""Which token sends for which page. Tokens stay in this process's memory and in the request."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from ..schemas import Settings, SettingsError
from ..schemas.setting_checks import may_be_token

#: How often the tokens file is looked at for changes.
_LOOK_EVERY_SECONDS = 1.0

logger = logging.getLogger(__name__)


class Tokens:
    """The token of each page: what `TOKENS_FILE` says, else `TOKEN`.

    Raises:
        SettingsError: at the start, when neither is set or the file is wrong. Later, when a
            changed file is wrong, the tokens read before stay in use and a warning is logged.
    """

    def __init__(self, settings: Settings) -> None:
        self._common = settings.token
        self._file = settings.tokens_file
        self._lock = threading.Lock()
        self._by_page: Mapping[str, str] = {}
        #: What `changed_fingerprints` returned last was about this.
        self._noted: Mapping[str, str] | None = None
        self._version: tuple[int, int] | None = None
        self._looked_at = time.monotonic()
        self._read_at = float("-inf")
        if self._file is None and self._common is None:
            raise SettingsError(
                "no token: set HARASOCIAL_TOKEN to a bearer token with the scope social.conv, "
                "or HARASOCIAL_TOKENS_FILE to a JSON file of page_id: token"
            )
        if self._file is not None:
            self._version = _version(self._file)
            self._by_page = read_tokens(self._file)

    def for_page(self, page_id: str) -> str | None:
        """Return the token that sends for the page, or None if there is none."""
        self._refresh()
        return self._by_page.get(page_id, self._common)

    @property
    def common_fingerprint(self) -> str:
        """The fingerprint of the common token; "" if there is none."""
        return fingerprint_of(self._common) if self._common else ""

    def changed_fingerprints(self) -> dict[str, str] | None:
        """Return the fingerprints of pages' own tokens if they changed since the last call."""
        self._refresh()
        by_page = self._by_page
        if by_page is self._noted:
            return None
        self._noted = by_page
        return {page_id: fingerprint_of(token) for page_id, token in by_page.items()}

    @property
    def settled(self) -> bool:
        """Whether the file's latest change is old enough for every process here to have read it."""
        return time.monotonic() - self._read_at > _LOOK_EVERY_SECONDS

    def _refresh(self) -> None:
        if self._file is None or time.monotonic() - self._looked_at < _LOOK_EVERY_SECONDS:
            return
        with self._lock:
            self._looked_at = time.monotonic()
            try:
                version = _version(self._file)
                if version == self._version:
                    return
                self._by_page = read_tokens(self._file)
                self._version = version
                self._read_at = time.monotonic()
                logger.info(
                    "tokens of %d pages were read again",
                    len(self._by_page),
                    extra={"action": "tokens_read"},
                )
            except SettingsError as error:
                logger.warning(
                    "%s; the tokens read before stay in use",
                    error,
                    extra={"action": "tokens_unreadable"},
                )


def fingerprint_of(token: str | None) -> str:
    """Return a text that differs for another token, and from which the token does not follow."""
    if token is None:
        return "none"
    return hashlib.blake2b(token.encode(), digest_size=8, person=b"hs-dispatch").hexdigest()


def _version(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError as error:
        raise SettingsError(f"HARASOCIAL_TOKENS_FILE cannot be read: {error}") from None
    return status.st_mtime_ns, status.st_size


def read_tokens(file: Path) -> dict[str, str]:
    """Return page_id → token as the file has it.

    Raises:
        SettingsError: it cannot be read, or is not a JSON object of strings that names each page
            once. No token is quoted.
    """
    try:
        # As pairs, since a page that stands in it twice would lose one of its tokens unseen.
        pairs = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=tuple)
    except OSError as error:
        raise SettingsError(f"HARASOCIAL_TOKENS_FILE cannot be read: {error}") from None
    except (ValueError, RecursionError):
        raise SettingsError(f"HARASOCIAL_TOKENS_FILE, {file}, is not JSON") from None
    if not isinstance(pairs, tuple):
        raise SettingsError(
            f"HARASOCIAL_TOKENS_FILE, {file}, must be a JSON object of page_id: token"
        )
    tokens: dict[str, str] = {}
    for number, (page_id, token) in enumerate(pairs, start=1):
        # What stands in place of a page id may be a token, so it is not quoted.
        if not (page_id.isascii() and page_id.isdigit()):
            raise SettingsError(
                f"HARASOCIAL_TOKENS_FILE, {file}: the page id of entry {number} must be "
                "a string of digits"
            )
        if page_id in tokens:
            raise SettingsError(
                f"HARASOCIAL_TOKENS_FILE, {file}: the page id of entry {number} stands there twice"
            )
        if not (isinstance(token, str) and may_be_token(token)):
            raise SettingsError(
                f"HARASOCIAL_TOKENS_FILE, {file}: the token of entry {number} must be "
                "printable ASCII without spaces"
            )
        tokens[page_id] = token
    return tokens
