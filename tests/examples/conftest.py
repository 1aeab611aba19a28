"""Fixtures: each example with its framework's test client, and the Valkey server."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import redis
from harasocial_dispatch.producer import Producer, Settings
from harasocial_dispatch.producer import _default as default_producer
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.schemas import use_host_settings
from support.harness import present
from support.web_apps import Answer, Outage, WebApp

EXAMPLES = Path(__file__).parents[2] / "examples"


def load_example(name: str) -> ModuleType:
    """Import `examples/<name>.py`."""
    spec = present(importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py"))
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # needed by Django and FastAPI to resolve names
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[EmbeddedValkey]:
    """Return one server for all tests, because Django can be set up only once per process."""
    with EmbeddedValkey(appendonly="yes") as running:
        yield running


@pytest.fixture
def valkey(shared_valkey: EmbeddedValkey) -> EmbeddedValkey:
    """Empty the server."""
    with redis.Redis.from_url(shared_valkey.url) as client:
        client.flushall()
    return shared_valkey


@pytest.fixture
def away(valkey: EmbeddedValkey) -> Outage:
    """Stop listening on the server's port during the block."""

    @contextmanager
    def block() -> Iterator[None]:
        valkey.kill()
        try:
            yield
        finally:
            valkey.restart()

    return block


@pytest.fixture
def halted(valkey: EmbeddedValkey) -> Outage:
    """Accept connections without replies during the block."""

    @contextmanager
    def block() -> Iterator[None]:
        valkey.pause()
        try:
            yield
        finally:
            valkey.resume()

    return block


@pytest.fixture
def producer(valkey: EmbeddedValkey) -> Iterator[Producer]:
    """Return a producer that reads Redis directly, without the web app."""
    made = Producer(Settings(redis_url=valkey.url))
    yield made
    made.close()


@pytest.fixture
def flask_app(valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch) -> WebApp:
    monkeypatch.setenv("HARASOCIAL_REDIS_URL", valkey.url)
    client = load_example("flask_app").create_app().test_client()

    def request(method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        reply = client.open(
            path, method=method, data=body, content_type="application/json", headers=headers
        )
        return Answer(reply.status_code, reply.headers, reply.get_json(silent=True))

    return WebApp("flask", request)


@pytest.fixture(scope="session")
def django_module(
    shared_valkey: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory
) -> ModuleType:
    from django.core.management import call_command

    with pytest.MonkeyPatch.context() as environment:
        database = tmp_path_factory.mktemp("django") / "orders.sqlite3"
        environment.setenv("ORDERS_DATABASE", str(database))
        environment.setenv("HARASOCIAL_REDIS_URL", shared_valkey.url)
        module = load_example("django_app")
        default_producer.cache_clear()
        default_producer()
    use_host_settings({})
    call_command("migrate", run_syncdb=True, verbosity=0)
    return module


@pytest.fixture
def django_app(valkey: EmbeddedValkey, django_module: ModuleType) -> WebApp:
    from django.test import Client

    django_module.Order.objects.all().delete()
    client = Client(SERVER_NAME="localhost")

    def request(method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        reply = client.generic(method, path, body, "application/json", headers=headers)
        is_json = reply.headers["Content-Type"] == "application/json"
        return Answer(reply.status_code, reply.headers, reply.json() if is_json else None)

    return WebApp("django", request)


@pytest.fixture
def fastapi_app(valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebApp]:
    from fastapi.testclient import TestClient

    monkeypatch.setenv("HARASOCIAL_REDIS_URL", valkey.url)
    # As a context manager, the client runs the app's lifespan too.
    with TestClient(load_example("fastapi_app").app) as client:

        def request(method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
            named = {"Content-Type": "application/json", **headers}
            reply = client.request(method, path, content=body, headers=named)
            return Answer(reply.status_code, reply.headers, reply.json())

        yield WebApp("fastapi", request)


@pytest.fixture(params=["flask", "django", "fastapi"])
def web_app(request: pytest.FixtureRequest) -> WebApp:
    """Each of the examples in turn."""
    found: WebApp = request.getfixturevalue(f"{request.param}_app")
    return found
