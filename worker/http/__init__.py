"""HTTP calls to the API: one POST each, many at once, on one event loop.

`Endpoint` is what is prepared once: the address, the headers, trust in certificates and the proxy.
`Client` makes the calls. Each ends with a `Reply` or a `CallFailed`, by its deadline. `call_once`
makes a single one.
"""

from __future__ import annotations

from .client import Client
from .endpoint import Endpoint
from .reply import CallFailed, Reply
from .single_call import call_once

__all__ = ["CallFailed", "Client", "Endpoint", "Reply", "call_once"]
