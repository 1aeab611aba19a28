"""The limit of wrong logins per client: pure, with the time passed in."""

from __future__ import annotations

import pytest
from harasocial_dispatch.flower.login_limit import LoginLimit, client_of
from hypothesis import given
from hypothesis import strategies as st


def limit(max_clients: int = 100) -> LoginLimit:
    return LoginLimit(attempts=3, refill_seconds=10.0, max_clients=max_clients)


def test_attempts_are_refilled_one_at_a_time() -> None:
    """Three wrong logins at once, then one per ten seconds, and three again after a pause."""
    logins = limit()
    assert [logins.count_wrong("a", now=100.0) for _ in range(3)] == [False, False, True]
    assert logins.wait_seconds("a", now=100.0) == 10.0
    assert logins.wait_seconds("a", now=109.0) == 1.0
    assert logins.wait_seconds("a", now=110.0) == 0.0
    assert logins.count_wrong("a", now=110.0) is True
    assert logins.wait_seconds("a", now=110.0) == 10.0
    assert [logins.count_wrong("a", now=200.0) for _ in range(3)] == [False, False, True]


def test_clients_do_not_share_their_attempts() -> None:
    """A client that guesses does not block other clients."""
    logins = limit()
    for _ in range(10):
        logins.count_wrong("a", now=0.0)
    assert logins.wait_seconds("a", now=0.0) > 0
    assert logins.wait_seconds("b", now=0.0) == 0.0


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 100)), max_size=200))
def test_memory_and_waits_are_bounded(attempts: list[tuple[int, float]]) -> None:
    """For any attempts, the number of clients is bounded, and a wait is at most one refill."""
    logins = limit(max_clients=7)
    now = 0.0
    for client, pause in attempts:
        now += pause
        if not logins.wait_seconds(str(client), now=now):
            logins.count_wrong(str(client), now=now)
        assert len(logins) <= 7
        assert 0 <= logins.wait_seconds(str(client), now=now) <= 10.0


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("0.0.0.0", "0.0.0.0"),
        ("", ""),
        ("x", "x"),
    ],
)
def test_a_client_is_an_address_or_a_network_of_one_subscriber(address: str, client: str) -> None:
    """An IPv6 subscriber has too many addresses to limit each one separately."""
    assert client_of(address) == client
