"""Generates docs/error-codes.md from the table in schemas/error_codes.py, for `make docs`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from harasocial_dispatch.schemas.error_codes import (
    API_CODES,
    FALLBACK_CODES,
    KIND_NAMES,
    UNKNOWN,
    ErrorCode,
    ReplayKind,
    Subject,
)
from harasocial_dispatch.schemas.language import Language

PAGE = Path(__file__).with_name("error-codes.md")

_HEADS: dict[Language, str] = {
    "en": "| code | class | about | replay | it means | what to do |",
    "vi": "| mã lỗi | loại | liên quan đến | gửi lại | ý nghĩa | cần làm gì |",
}
_INTRODUCTION = """\
# Error codes

[English](#codes-of-the-api) · [Tiếng Việt](#mã-lỗi-của-api)

This page is generated from the table in `schemas/error_codes.py`; edit that, then run `make docs`.

A job's `error_code` is the API's code, if the reply has one. If the reply has no `error_code` and
its `error_message` begins with `(#10)` or `(#10/2018278)`, that code is used. A compound code
`code/subcode` that is not listed is treated like its subcode, if the subcode has six digits or
more, otherwise like its code. Codes in words are the program's own.

| class | the job | the page |
|---|---|---|
| `permanent` | fails without retry | continues; five refusals in a row about the page pause it |
| `transient` | is retried, and spends an attempt | continues; many failures in a row pause it |
| `ambiguous` | as `transient`; with `delivery="at_most_once"`, fails | as `transient` |
| `throttled` | waits, and spends no attempt | waits as requested, or for a growing pause |
| `app_throttled` | as `throttled` | every page of the token waits |
| `restricted` | waits, and spends no attempt | pauses for 30 minutes, then longer, up to 4 hours |
| `auth` | fails | pauses until its token changes or works again |

*About* is `page` if the page's other messages may be refused for the same reason, and `person` if
the refusal concerns only the recipient. *Replay* is `passing` (worth another try), `fixable` (after
a person has fixed the cause) or `never`. With a code marked †, the message may have been sent: with
`delivery="at_most_once"` its class is `ambiguous`.

`HARASOCIAL_ERROR_CODE_CLASSES=999=transient,10/7=restricted` assigns codes of the API to other
classes. With `HARASOCIAL_LANGUAGE=vi` commands explain codes in Vietnamese.
"""
_TITLES: dict[Language, tuple[str, str, str]] = {
    "en": ("Codes of the API", "Codes of this program", "any other code"),
    "vi": ("Mã lỗi của API", "Mã lỗi của chương trình", "mã khác"),
}
_KINDS_IN_VIETNAMESE = "Cột *gửi lại*: {}. Mã có dấu † nghĩa là có thể tin đã được gửi."


def page() -> str:
    """Return the page as Markdown."""
    return "\n".join([_INTRODUCTION, *_tables("en"), *_tables("vi")])


def _tables(language: Language) -> Iterator[str]:
    of_api, own, other = _TITLES[language]
    yield from _table(of_api, [*API_CODES, UNKNOWN], language, other)
    if language == "vi":
        kinds = (f"`{kind}` – {KIND_NAMES[kind]['vi'].lower()}" for kind in ReplayKind)
        yield _KINDS_IN_VIETNAMESE.format("; ".join(kinds))
        yield ""
    yield from _table(own, FALLBACK_CODES, language, other)


def _table(title: str, rows: Iterable[ErrorCode], language: Language, other: str) -> Iterator[str]:
    yield from (f"## {title}", "", _HEADS[language], "|---" * 6 + "|")
    for row in rows:
        meaning, remedy = row.texts[language]
        code = f"`{row.code}`" if row.code else other
        cells = (
            f"{code} †" if row.may_have_been_sent else code,
            f"`{row.outcome_class}`",
            "" if row.about is Subject.OTHER else row.about.value,
            row.replay.value,
            meaning,
            remedy,
        )
        yield f"| {' | '.join(cells)} |"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
