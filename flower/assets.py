"""The stylesheet and script of our pages, with cacheable URLs."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).parent / "static"


@lru_cache(maxsize=8)
def address_of(name: str) -> str:
    """Return the query string of a file's URL. It changes with the file's content."""
    return "?v=" + hashlib.blake2b((FOLDER / name).read_bytes(), digest_size=6).hexdigest()
