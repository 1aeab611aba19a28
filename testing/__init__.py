"""A test kit for apps that enqueue jobs. It needs no network.

With pytest, use the fixture `harasocial`, a `TestKit`:

    def test_an_order_is_confirmed(harasocial, client):
        client.post("/orders", {"number": "1001", "customer_psid": "2560816460648749"})
        harasocial.assert_enqueued(recipient_id="2560816460648749", count=1)
        (job,) = harasocial.drain()
        assert job.state == "sent"

Without pytest, use `with TestKit() as harasocial:`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# Import through the parent package, so that a bare `import testing` fails here instead of loading
# every module twice.
from .. import testing as _testing  # noqa: F401

if TYPE_CHECKING:
    from .kit import TestKit

__all__ = ["TestKit"]


def __getattr__(name: str) -> Any:
    # pytest loads the plugin, and so this module, in every project that has this package installed.
    # Other modules are loaded when a test needs them.
    if name == "TestKit":
        from .kit import TestKit  # noqa: PLC0415

        return TestKit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
