"""The style and script of our pages, with addresses that a browser may cache."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).parent / "static"


@lru_cache(maxsize=8)
def address_of(name: str) -> str:
    """Return the query that is added to a file's address; it changes with the file."""
    return "?v=" + hashlib.blake2b((FOLDER / name).read_bytes(), digest_size=6).hexdigest()
