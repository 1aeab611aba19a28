"""A test kit for applications that enqueue: what was enqueued, and how it ends, without a network.

With pytest, use the fixture `harasocial`, a `TestKit`:

    def test_an_order_is_confirmed(harasocial, client):
        client.post("/orders", {"number": "1001", "customer_psid": "2560816460648749"})
        harasocial.assert_enqueued(recipient_id="2560816460648749", count=1)
        (job,) = harasocial.drain()
        assert job.state == "sent"

Anywhere else, `with TestKit() as harasocial:` is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# Through the parent: a bare `import testing` fails here, instead of loading everything twice.
from .. import testing as _testing  # noqa: F401

if TYPE_CHECKING:
    from .kit import TestKit

__all__ = ["TestKit"]


def __getattr__(name: str) -> Any:
    # pytest loads the plugin, and so this module, in every project that has this package
    # installed: the rest is loaded when a test uses it.
    if name == "TestKit":
        from .kit import TestKit  # noqa: PLC0415

        return TestKit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
