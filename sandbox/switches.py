"""What can be changed while the sandbox runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

#: The token that is right unless others are given.
DEFAULT_TOKEN = "sandbox-token"  # noqa: S105 - it opens nothing but this stand-in


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """One valid setting of all switches.

    Raises:
        ValueError: naming the switch, if a value is not one it can have.
    """

    #: page_id, or `*` for every other page → token.
    tokens: Mapping[str, str]
    #: An HTTP status from 200 to 599 with which every POST is answered; None for none.
    fail_with: int | None = None
    #: Seconds that every POST waits for its reply.
    latency_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.tokens, Mapping) or not all(
            isinstance(text, str) and text for pair in self.tokens.items() for text in pair
        ):
            raise ValueError("tokens must map page ids, or *, to tokens: strings, not empty")
        if self.fail_with is not None and (
            type(self.fail_with) is not int or not 200 <= self.fail_with <= 599
        ):
            raise ValueError("fail_with must be an HTTP status from 200 to 599, or null (None)")
        if type(self.latency_seconds) not in {int, float} or not (
            0 <= self.latency_seconds < math.inf
        ):
            raise ValueError("latency_seconds must be a number of seconds, 0 or more")
        # Whoever gave the mapping may change it later; what was checked must stay.
        object.__setattr__(self, "tokens", MappingProxyType(dict(self.tokens)))

    def changed(self, changes: Any) -> Switches:
        """Return these switches with `changes`, a mapping of some of their names, applied.

        Raises:
            ValueError: if a name or a value is wrong; nothing is changed then.
        """
        names = [field.name for field in fields(self)]
        if not isinstance(changes, Mapping) or not set(changes) <= set(names):
            raise ValueError(f"the switches are an object with some of {', '.join(names)}")
        return replace(self, **changes)
