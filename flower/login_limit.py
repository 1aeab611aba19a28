"""Limits how many wrong logins each client may try. Pure: the time is passed in."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

#: Of an IPv6 address, the part that is one subscriber's network.
_IPV6_NETWORK_BITS = 64


class LoginLimit:
    """Count the wrong logins of each client.

    Args:
        attempts: wrong logins that a client may try at once.
        refill_seconds: after which it may try one more.
        max_clients: how many are remembered. When there are more, those that tried least recently
            are forgotten.
    """

    def __init__(self, *, attempts: int, refill_seconds: float, max_clients: int) -> None:
        self._refill_seconds = refill_seconds
        #: All attempts are spent while a client's are this far from being complete again.
        self._spent_seconds = attempts * refill_seconds
        self._max_clients = max_clients
        #: Client → when it has all its attempts again.
        self._complete_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._complete_at)

    def wait_seconds(self, client: str, *, now: float) -> float:
        """Return how long this client must wait before its next attempt; 0 if it need not."""
        missing = self._complete_at.get(client, now) - now
        return max(0.0, missing + self._refill_seconds - self._spent_seconds)

    def count_wrong(self, client: str, *, now: float) -> bool:
        """Count a wrong login, and return whether it was the last attempt for now."""
        complete_at = max(self._complete_at.get(client, now), now) + self._refill_seconds
        self._complete_at[client] = complete_at
        self._complete_at.move_to_end(client)
        if len(self._complete_at) > self._max_clients:
            self._complete_at.popitem(last=False)
        return self.wait_seconds(client, now=now) > 0


def client_of(address: str) -> str:
    """Return whom an address stands for: itself, or in IPv6 its network."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _IPV6_NETWORK_BITS), strict=False))
