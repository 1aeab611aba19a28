"""What this package adds to Flower: the Failures page, metrics, and a safe way to start.

Flower keeps what it shows in memory, and only so much of it. The Failures page reads the ledger:
it is the same after every restart, for as long as failed jobs are kept.
"""

from .extension import extend

__all__ = ["extend"]
