"""The error codes that are known, and what each means for the job.

They are Messenger's and Graph's, which the API may pass on: compound as `code/subcode`, or either
alone. Sources: the Messenger Platform and Graph API error references. Where those disagree (551),
the safe side, no retry, holds. `ERROR_CODE_CLASSES` adds to the list and comes before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..schemas import OutcomeClass

_BY_CLASS = {
    OutcomeClass.TRANSIENT: "1 2 1200 1200/2018024",
    OutcomeClass.THROTTLED: "4 17 32 341 613 80006",
    OutcomeClass.AUTH: "102 190",
    # Sent in spite of the error; see `FINAL`.
    OutcomeClass.AMBIGUOUS: "1/1357046",
    OutcomeClass.PERMANENT: (
        # a permission that the page or app lacks
        "3 10 1/99 2/2018344 " + " ".join(str(code) for code in range(200, 300)) + " "
        # the messaging window is closed
        "10/2018278 10/2018065 2534022 4/2018354 "
        # the person is unavailable; a bad parameter; a duplicate; blocked for abuse
        "10/2018108 200/1545041 551 551/1545041 100 100/2018001 100/2018109 506 368"
    ),
}

#: Ambiguous for good: the message was sent although the reply is an error.
FINAL = frozenset({"1/1357046", "1357046"})

#: A subcode this long means the same whatever code it comes with, so it may stand alone.
_UNIQUE_SUBCODE_DIGITS = 6


def _table() -> Mapping[str, OutcomeClass]:
    table = {}
    for outcome_class, codes in _BY_CLASS.items():
        for code in codes.split():
            table[code] = outcome_class
            subcode = code.partition("/")[2]
            if len(subcode) >= _UNIQUE_SUBCODE_DIGITS:
                table[subcode] = outcome_class
    return MappingProxyType(table)


KNOWN: Mapping[str, OutcomeClass] = _table()


def class_of(
    error_code: str | None, extra: Mapping[str, OutcomeClass] = MappingProxyType({})
) -> OutcomeClass | None:
    """Return the class of an API error code, or None if it is not known.

    A compound `code/subcode` that is not listed falls back to its code. `extra` comes first.
    """
    if error_code is None:
        return None
    code = error_code.partition("/")[0]
    for table in (extra, KNOWN):
        for known in (error_code, code):
            if known in table:
                return table[known]
    return None
