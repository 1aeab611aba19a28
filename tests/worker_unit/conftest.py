"""Property tests of the worker's pure parts run as long as they need: the machine may be busy."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unhurried", settings.default, deadline=None)
settings.load_profile("unhurried")
