"""A client with plain sockets for the sandbox of a test."""

from __future__ import annotations

import pytest
from harasocial_dispatch.sandbox import Sandbox
from support.exact_client import Client


@pytest.fixture
def client(sandbox: Sandbox) -> Client:
    return Client(sandbox)
