"""Remove a secret from text that another system wrote, in any encoding.

An API that refuses a request may quote it: unchanged, percent-encoded, escaped for JSON or HTML, in
base64 or hex, wrapped over several lines, in lower case, or cut short. A search for the exact
secret finds only the first of these. So the search compares short runs of characters:

- Only letters and digits are compared, in lower case. This ignores wrapping, separators, case, and
  the differences between the alphabets of base64.
- Escapes are decoded, several times if they are nested.
- Base64, hex and lists of byte values are not decoded. Instead, the secret is encoded, once for
  each alignment, and the text is searched for its runs.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

#: The replacement for the secret.
MARK = "[token]"
#: A run of this many letters and digits of the secret is removed. A shorter run may remain.
RUN_CHARACTERS = 8
#: The same for hex and byte values. There, 8 characters of the secret are 16 digits or more.
#: Shorter runs of digits also occur in ids.
_DIGIT_RUN_CHARACTERS = 2 * RUN_CHARACTERS
#: Maximum nesting of escapes, such as a percent-encoded JSON string within JSON.
_LEVELS = 4
#: Number of secrets whose encodings are cached, at about 0.2 MB each.
_CACHED_SECRETS = 32

_NOT_ALPHANUMERIC = re.compile(r"[^0-9A-Za-z]+")
_NOT_VISIBLE = re.compile(r"[^!-~]+")
_DIGIT_RUN = re.compile(f"[0-9a-f]{{{_DIGIT_RUN_CHARACTERS}}}")
_ESCAPE = re.compile(
    # The first characters of all escapes. They make the search fast in a text without escapes.
    r"(?=[%=0\\&<])(?:"
    r"(?:%|=|0x|\\+x)(?P<byte>[0-9A-Fa-f]{2})"
    r"|(?:%|\\+)u(?P<unit>[0-9A-Fa-f]{4})"
    r"|\\+u\{(?P<point>[0-9A-Fa-f]{1,6})\}"
    r"|\\+(?P<octal>[0-7]{3})"
    r"|(?P<blank>\\+[bfnrtv]|</?[A-Za-z]{1,4}\s*/?>)"
    r"|\\+(?P<escaped>.)"
    r"|(?P<entity>&(?:\#[Xx]?[0-9A-Fa-f]{1,8}|[A-Za-z]{2,20});?)"
    r")"
)
_BASES = {"byte": 16, "unit": 16, "point": 16, "octal": 8}


@dataclass(frozen=True, slots=True)
class _Spellings:
    """The runs of characters that identify a secret.

    Attributes:
        exact: the secret itself, with the punctuation at its ends.
        ignored: the characters that are not compared.
        runs: the length of a run → all runs of that length.
    """

    exact: re.Pattern[str] = field(repr=False)
    ignored: re.Pattern[str]
    runs: dict[int, frozenset[str]] = field(repr=False)

    def are_in(self, text: str) -> bool:
        """Return whether `text` contains a run of the secret. Escapes are not decoded."""
        folded = self.fold(text)
        return any(not runs.isdisjoint(_runs(folded, size)) for size, runs in self.runs.items())

    def fold(self, text: str) -> str:
        return self.ignored.sub("", text).lower()

    def find(self, folded: str) -> Iterator[tuple[int, int]]:
        """Yield the start and end of each run in a folded text."""
        for size, runs in self.runs.items():
            for start, run in enumerate(_runs(folded, size)):
                if run in runs:
                    yield start, start + size


def _runs(folded: str, size: int) -> list[str]:
    """Return all runs of the given length. Runs of digits are skipped if the text has none."""
    if size == _DIGIT_RUN_CHARACTERS and _DIGIT_RUN.search(folded) is None:
        return []
    return [folded[start : start + size] for start in range(len(folded) - size + 1)]


@dataclass(frozen=True, slots=True)
class _Decoded:
    """A text, and for each of its characters the position in the original."""

    text: str
    starts: list[int]
    ends: list[int]


def redact(text: str, secret: str) -> str:
    """Replace `secret`, in any encoding, and parts of it with `[token]`.

    Parts of fewer than 8 letters and digits may remain. `secret` must not be empty.
    """
    spellings = _spellings_of(secret)
    if not spellings.are_in(text) and _ESCAPE.search(text) is None:
        return text
    spans: list[tuple[int, int]] = []
    decoded = _Decoded(text, list(range(len(text))), list(range(1, len(text) + 1)))
    for _ in range(_LEVELS + 1):
        spans += _found(decoded, spellings)
        if _ESCAPE.search(decoded.text) is None:
            break
        decoded = _decode(decoded)
    redacted = _replace(text, spans)
    # The text before and after the mark may form another run together.
    return MARK if spans and spellings.are_in(redacted) else redacted


@lru_cache(maxsize=_CACHED_SECRETS)
def _spellings_of(secret: str) -> _Spellings:
    ignored = _NOT_ALPHANUMERIC
    if len(ignored.sub("", secret)) < RUN_CHARACTERS:
        # Such a secret is mostly punctuation, so punctuation is compared too.
        ignored = _NOT_VISIBLE
    plain = ignored.sub("", secret).lower()
    groups: dict[int, set[str]] = {}

    def add(spelling: str, size: int) -> None:
        folded = ignored.sub("", spelling).lower()
        groups.setdefault(size, set()).update(_runs(folded, size))

    add(secret, min(RUN_CHARACTERS, len(plain)))
    for cased in (secret, secret.lower(), secret.upper()):
        octets = cased.encode()
        for offset in range(3):
            encoded = base64.b64encode(bytes(offset) + octets).decode()
            # Leave out the characters that contain bits of the text before or after the secret.
            add(encoded[-(-offset * 8 // 6) : (offset + len(octets)) * 8 // 6], RUN_CHARACTERS)
        add(octets.hex(), _DIGIT_RUN_CHARACTERS)
        add("".join(map(str, octets)), _DIGIT_RUN_CHARACTERS)
    runs = {size: frozenset(runs) for size, runs in groups.items()}
    return _Spellings(re.compile(re.escape(secret)), ignored, runs)


def _found(decoded: _Decoded, spellings: _Spellings) -> Iterator[tuple[int, int]]:
    """Yield the spans of the original text that contain the secret or a run of it."""
    for match in spellings.exact.finditer(decoded.text):
        yield decoded.starts[match.start()], decoded.ends[match.end() - 1]
    kept = [i for i, c in enumerate(decoded.text) if not spellings.ignored.fullmatch(c)]
    for start, end in spellings.find(spellings.fold(decoded.text)):
        yield decoded.starts[kept[start]], decoded.ends[kept[end - 1]]


def _decode(decoded: _Decoded) -> _Decoded:
    """Decode the outermost escapes."""
    characters: list[str] = []
    starts: list[int] = []
    ends: list[int] = []

    def copy(start: int, end: int) -> None:
        characters.append(decoded.text[start:end])
        starts.extend(decoded.starts[start:end])
        ends.extend(decoded.ends[start:end])

    copied = 0
    for match in _ESCAPE.finditer(decoded.text):
        copy(copied, match.start())
        meaning = _meaning(match)
        characters.append(meaning)
        starts.extend([decoded.starts[match.start()]] * len(meaning))
        ends.extend([decoded.ends[match.end() - 1]] * len(meaning))
        copied = match.end()
    copy(copied, len(decoded.text))
    return _Decoded("".join(characters), starts, ends)


def _meaning(match: re.Match[str]) -> str:
    """Decode one escape."""
    kind = match.lastgroup or ""
    value = match[kind]
    if kind in _BASES:
        point = int(value, _BASES[kind])
        return chr(point) if point < 0x110000 else ""
    if kind == "entity":
        return html.unescape(value if value.endswith(";") else f"{value};")
    return value if kind == "escaped" else " "


def _replace(text: str, spans: list[tuple[int, int]]) -> str:
    """Replace the spans with the mark. Overlapping spans get one mark."""
    pieces: list[str] = []
    end_of_last = 0
    for start, end in sorted(spans):
        if start >= end_of_last:
            pieces += [text[end_of_last:start], MARK]
        end_of_last = max(end_of_last, end)
    return "".join([*pieces, text[end_of_last:]])
