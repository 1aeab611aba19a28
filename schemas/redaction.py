"""Cut a secret out of text that another system wrote, in whatever spelling it appears there.

An API that refuses a request may quote it: as it was, percent-encoded, escaped for JSON or HTML, in
base64 or hex, wrapped over several lines, in lower case, or cut short. Looking for the secret's
exact text finds only the first of these. So a text is compared by short runs of characters:

- Letters and digits alone count, in lower case. That ignores wrapping, separators, case, and the
  differences between the alphabets of base64.
- Escapes are decoded, several times if they are nested.
- Base64, hex and lists of byte values are not decoded: the secret is encoded instead, once for each
  alignment, and its runs are looked for.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

#: What stands in place of the secret.
MARK = "[token]"
#: A run of the secret of this many letters and digits is removed; a shorter one may stay.
RUN_CHARACTERS = 8
#: The same for hex and byte values, where 8 characters of the secret are 16 digits or more. Shorter
#: runs of digits would also be found in ids.
_DIGIT_RUN_CHARACTERS = 2 * RUN_CHARACTERS
#: How deeply escapes are nested at most, such as a percent-encoded JSON string within JSON.
_LEVELS = 4
#: Secrets whose spellings are kept, at about 0.2 MB each.
_CACHED_SECRETS = 32

_NOT_ALPHANUMERIC = re.compile(r"[^0-9A-Za-z]+")
_NOT_VISIBLE = re.compile(r"[^!-~]+")
_DIGIT_RUN = re.compile(f"[0-9a-f]{{{_DIGIT_RUN_CHARACTERS}}}")
_ESCAPE = re.compile(
    # The first characters of all of them, which makes it fast where there is none.
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
    """The runs by which a secret is recognized.

    Attributes:
        exact: the secret as it is, with the signs at its ends.
        ignored: the characters that do not count.
        runs: the length of a run → all runs of that length.
    """

    exact: re.Pattern[str] = field(repr=False)
    ignored: re.Pattern[str]
    runs: dict[int, frozenset[str]] = field(repr=False)

    def are_in(self, text: str) -> bool:
        """Return whether a run of the secret is in `text`, not counting escapes."""
        folded = self.fold(text)
        return any(not runs.isdisjoint(_runs(folded, size)) for size, runs in self.runs.items())

    def fold(self, text: str) -> str:
        return self.ignored.sub("", text).lower()

    def find(self, folded: str) -> Iterator[tuple[int, int]]:
        """Yield where a run begins and ends in a folded text."""
        for size, runs in self.runs.items():
            for start, run in enumerate(_runs(folded, size)):
                if run in runs:
                    yield start, start + size


def _runs(folded: str, size: int) -> list[str]:
    """Return all runs of a length; of the longer ones, which are digits, only if there are any."""
    if size == _DIGIT_RUN_CHARACTERS and _DIGIT_RUN.search(folded) is None:
        return []
    return [folded[start : start + size] for start in range(len(folded) - size + 1)]


@dataclass(frozen=True, slots=True)
class _Decoded:
    """A text, and for each character where the original has what it comes from."""

    text: str
    starts: list[int]
    ends: list[int]


def redact(text: str, secret: str) -> str:
    """Return `text` with `[token]` in place of every spelling of `secret`, or part of one.

    Parts of fewer than 8 letters and digits may stay. `secret` must not be empty.
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
    # What stands around the mark can form another run together with it.
    return MARK if spans and spellings.are_in(redacted) else redacted


@lru_cache(maxsize=_CACHED_SECRETS)
def _spellings_of(secret: str) -> _Spellings:
    ignored = _NOT_ALPHANUMERIC
    if len(ignored.sub("", secret)) < RUN_CHARACTERS:
        # Signs are most of such a secret, so they count.
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
            # Without the characters that hold bits of what stands before or after the secret.
            add(encoded[-(-offset * 8 // 6) : (offset + len(octets)) * 8 // 6], RUN_CHARACTERS)
        add(octets.hex(), _DIGIT_RUN_CHARACTERS)
        add("".join(map(str, octets)), _DIGIT_RUN_CHARACTERS)
    runs = {size: frozenset(runs) for size, runs in groups.items()}
    return _Spellings(re.compile(re.escape(secret)), ignored, runs)


def _found(decoded: _Decoded, spellings: _Spellings) -> Iterator[tuple[int, int]]:
    """Yield the parts of the original text that hold the secret or a run of it."""
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
    """Return what one escape stands for."""
    kind = match.lastgroup or ""
    value = match[kind]
    if kind in _BASES:
        point = int(value, _BASES[kind])
        return chr(point) if point < 0x110000 else ""
    if kind == "entity":
        return html.unescape(value if value.endswith(";") else f"{value};")
    return value if kind == "escaped" else " "


def _replace(text: str, spans: list[tuple[int, int]]) -> str:
    """Put the mark in place of the spans; overlapping spans get one mark."""
    pieces: list[str] = []
    end_of_last = 0
    for start, end in sorted(spans):
        if start >= end_of_last:
            pieces += [text[end_of_last:start], MARK]
        end_of_last = max(end_of_last, end)
    return "".join([*pieces, text[end_of_last:]])
