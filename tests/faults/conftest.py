"""Repeatable randomness, and a certificate that calls trust."""

from __future__ import annotations

import os
import random
import ssl

import pytest
from support.scripted_server import CERTIFICATE, tls_context


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """A random generator. Its seed is printed, and FAULT_SEED=… repeats a run."""
    seed = int(os.environ.get("FAULT_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
    print(f"\n{request.node.name}: FAULT_SEED={seed}")  # noqa: T201 - shown when the test fails
    return random.Random(seed)


@pytest.fixture
def trusted_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls trust the certificate of `tls_context`."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))


@pytest.fixture(params=[False, True], ids=["plain", "TLS"])
def maybe_tls(request: pytest.FixtureRequest, trusted_certificate: None) -> ssl.SSLContext | None:
    """The TLS context of a server that calls trust, or None for a server without TLS."""
    return tls_context() if request.param else None
