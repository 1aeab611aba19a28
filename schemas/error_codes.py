"""The error codes that are known, and what each means for the job.

They are Messenger's and Graph's, which the API may pass on: compound as `code/subcode`, or either
alone. Sources: the Messenger Platform and Graph API error references. Where those disagree (551),
the safe side, no retry, holds. `ERROR_CODE_CLASSES` adds to the list and comes before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .states import OutcomeClass

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


def unique_subcode(error_code: str) -> str:
    """Return the subcode of a compound `code/subcode` that says enough by itself, or ""."""
    subcode = error_code.partition("/")[2]
    return subcode if len(subcode) >= _UNIQUE_SUBCODE_DIGITS else ""


def _with_lone_subcodes(table: Mapping[str, OutcomeClass]) -> Mapping[str, OutcomeClass]:
    lone = {
        subcode: outcome_class
        for code, outcome_class in table.items()
        if (subcode := unique_subcode(code))
    }
    return MappingProxyType(lone | dict(table))


KNOWN: Mapping[str, OutcomeClass] = _with_lone_subcodes(
    {code: outcome_class for outcome_class, codes in _BY_CLASS.items() for code in codes.split()}
)


def class_of(
    error_code: str | None, extra: Mapping[str, OutcomeClass] = MappingProxyType({})
) -> OutcomeClass | None:
    """Return the class of an API error code, or None if it is not known.

    A compound `code/subcode` that is not listed falls back to its subcode, if that means the same
    with any code, and then to its code. `extra` comes first.
    """
    if error_code is None:
        return None
    names = (error_code, unique_subcode(error_code), error_code.partition("/")[0])
    for table in (_with_lone_subcodes(extra), KNOWN):
        for name in names:
            if name and name in table:
                return table[name]
    return None


def is_final(error_code: str | None) -> bool:
    """Return whether the code says that the message was sent in spite of the error."""
    return error_code is not None and (error_code in FINAL or unique_subcode(error_code) in FINAL)
