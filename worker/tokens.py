"""The tokens of pages. Tokens are only kept in memory and sent in requests."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from ..schemas import Settings, SettingsError
from ..schemas.setting_checks import may_be_token

#: How often the tokens file is checked for changes.
_CHECK_EVERY_SECONDS = 1.0

logger = logging.getLogger(__name__)


class Tokens:
    """The token of each page: from `TOKENS_FILE`, or `TOKEN` for other pages.

    If a changed file is invalid, the previous tokens stay in use and a warning is logged.

    Raises:
        SettingsError: neither is set, or the file is invalid at the start.
    """

    def __init__(self, settings: Settings) -> None:
        self._common = settings.token
        self._file = settings.tokens_file
        self._lock = threading.Lock()
        self._by_page: Mapping[str, str] = {}
        #: The version of the file at the last call of `changed_fingerprints`.
        self._noted: Mapping[str, str] | None = None
        self._version: tuple[int, int] | None = None
        self._checked_at = time.monotonic()
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
        """Return the token of the page, or None if it has none."""
        self._refresh()
        return self._by_page.get(page_id, self._common)

    @property
    def common_fingerprint(self) -> str:
        """The fingerprint of the common token, or "" if there is none."""
        return fingerprint_of(self._common) if self._common else ""

    def changed_fingerprints(self) -> dict[str, str] | None:
        """Return the fingerprints of the tokens in the file if they changed since the last call."""
        self._refresh()
        by_page = self._by_page
        if by_page is self._noted:
            return None
        self._noted = by_page
        return {page_id: fingerprint_of(token) for page_id, token in by_page.items()}

    @property
    def settled(self) -> bool:
        """Whether every process of this worker has read the latest change of the file."""
        return time.monotonic() - self._read_at > _CHECK_EVERY_SECONDS

    def _refresh(self) -> None:
        if self._file is None or time.monotonic() - self._checked_at < _CHECK_EVERY_SECONDS:
            return
        with self._lock:
            self._checked_at = time.monotonic()
            try:
                version = _version(self._file)
                if version == self._version:
                    return
                self._by_page = read_tokens(self._file)
                self._version = version
                self._read_at = time.monotonic()
                logger.info(
                    "reloaded the tokens of %d pages",
                    len(self._by_page),
                    extra={"action": "tokens_read"},
                )
            except SettingsError as error:
                logger.warning(
                    "%s; the previous tokens stay in use",
                    error,
                    extra={"action": "tokens_unreadable"},
                )


@lru_cache(maxsize=1024)
def fingerprint_of(token: str | None) -> str:
    """Return a one-way fingerprint of the token."""
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
    """Read the tokens file. Return page_id → token.

    Raises:
        SettingsError: the file cannot be read, is not a JSON object of strings, or has a page
            twice. No token is quoted.
    """
    try:
        # Parse to pairs. A dict would silently drop one of two tokens of a page.
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
        # The invalid page id is not quoted: it may be a token.
        if not (page_id.isascii() and page_id.isdigit()):
            raise SettingsError(
                f"HARASOCIAL_TOKENS_FILE, {file}: the page id of entry {number} must be "
                "a string of digits"
            )
        if page_id in tokens:
            raise SettingsError(
                f"HARASOCIAL_TOKENS_FILE, {file}: the page id of entry {number} is a duplicate"
            )
        if not (isinstance(token, str) and may_be_token(token)):
            raise SettingsError(
                f"HARASOCIAL_TOKENS_FILE, {file}: the token of entry {number} must be "
                "printable ASCII without spaces"
            )
        tokens[page_id] = token
    return tokens
