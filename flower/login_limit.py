"""Limit the wrong logins of each client. Pure: the time is passed in."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

#: Prefix length of one subscriber's IPv6 network.
_IPV6_NETWORK_BITS = 64


class LoginLimit:
    """Counts the wrong logins of each client.

    Args:
        attempts: number of wrong logins that a client may try at once.
        refill_seconds: time until one more attempt is allowed.
        max_clients: number of clients to keep. If there are more, the least recently active clients
            are removed.
    """

    def __init__(self, *, attempts: int, refill_seconds: float, max_clients: int) -> None:
        self._refill_seconds = refill_seconds
        #: Time to refill all attempts. A client that needs this time has no attempts left.
        self._spent_seconds = attempts * refill_seconds
        self._max_clients = max_clients
        #: Client → time at which all its attempts are refilled.
        self._complete_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._complete_at)

    def wait_seconds(self, client: str, *, now: float) -> float:
        """Return the seconds until the client's next attempt is allowed; 0 if it is allowed now."""
        missing = self._complete_at.get(client, now) - now
        return max(0.0, missing + self._refill_seconds - self._spent_seconds)

    def count_wrong(self, client: str, *, now: float) -> bool:
        """Count a wrong login. Return whether it was the last allowed attempt."""
        complete_at = max(self._complete_at.get(client, now), now) + self._refill_seconds
        self._complete_at[client] = complete_at
        self._complete_at.move_to_end(client)
        if len(self._complete_at) > self._max_clients:
            self._complete_at.popitem(last=False)
        return self.wait_seconds(client, now=now) > 0


def client_of(address: str) -> str:
    """Return the client of an address: the IPv4 address, or the IPv6 network."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _IPV6_NETWORK_BITS), strict=False))
