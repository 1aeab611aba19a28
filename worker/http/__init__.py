"""HTTP calls to the API: one POST each, many at once, on one event loop.

`Endpoint` is what is prepared once: the address, the headers, trust in certificates and the proxy.
`Client` makes the calls. Each ends with a `Reply` or a `CallFailed`, by its deadline.
"""

from .client import Client
from .endpoint import Endpoint
from .reply import CallFailed, Reply

__all__ = ["CallFailed", "Client", "Endpoint", "Reply"]
