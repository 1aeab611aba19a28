"""x."""
from .server import Sandbox, exports, serve_forever
