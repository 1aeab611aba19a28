"""HTTP calls to the API: many POSTs at once, on one event loop.

`Endpoint` has what all calls share: the address, the headers, the trusted certificates and the
proxy. `Client` makes the calls. Each call ends with a `Reply` or a `CallFailed`, by its deadline.
`call_once` makes a single call.
"""

from __future__ import annotations

from .client import Client
from .endpoint import Endpoint
from .reply import CallFailed, Reply
from .single_call import call_once

__all__ = ["CallFailed", "Client", "Endpoint", "Reply", "call_once"]
