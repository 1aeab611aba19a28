"""`rediss://`: the password is not sent to an unverified server (promise 9)."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner
from harasocial_dispatch.broker import Doorbell
from harasocial_dispatch.broker.separate_celery import SeparateCelery
from harasocial_dispatch.cli import commands
from harasocial_dispatch.producer import Producer, QueueUnavailable
from harasocial_dispatch.sandbox import EmbeddedValkey, Sandbox
from harasocial_dispatch.schemas import Settings, State
from support.harness import StartWorker, body, environment, eventually, wait_until_ended
from support.relay import Relay

PASSWORD = "correct-horse-battery-staple"


class Authority:
    """A CA and its certificates, as PEM files."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self._folder = folder
        folder.mkdir()
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def server(self, name: str = "127.0.0.1", *, wants_client: bool = False) -> ssl.SSLContext:
        """Return the TLS context of a server with this name."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(name).configure_cert(context)
        if wants_client:
            context.verify_mode = ssl.CERT_REQUIRED
            self._ca.configure_trust(context)
        return context

    def client(self) -> tuple[Path, Path]:
        """Return the files of a client's certificate and key."""
        made = self._ca.issue_cert("client@example.org")
        certificate, key = self._folder / "client.pem", self._folder / "client.key"
        made.cert_chain_pems[0].write_to_path(certificate)
        made.private_key_pem.write_to_path(key)
        return certificate, key


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(requirepass=PASSWORD) as running:
        yield running


def url(relay: Relay, **options: object) -> str:
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"rediss://:{PASSWORD}@127.0.0.1:{relay.port}/0{'?' if query else ''}{query}"


def test_a_worker_sends_over_verified_tls(
    authority: Authority, server: EmbeddedValkey, start_worker: StartWorker, settings: Settings
) -> None:
    """All connections use TLS: the ledger, doorbells, the worker's broker, events and `check`."""
    certificate, key = authority.client()
    with Relay(server.port, tls=authority.server(wants_client=True)) as relay:
        trusted = url(relay, ssl_ca_certs=authority.file, ssl_certfile=certificate, ssl_keyfile=key)
        worker = start_worker(REDIS_URL=trusted)
        producer = Producer(replace(settings, redis_url=trusted))

        job_id = producer.enqueue(body())
        (record,) = wait_until_ended(producer, [job_id])

        assert record.state is State.SENT
        assert Doorbell(replace(settings, redis_url=trusted)).ring()
        assert PASSWORD not in worker.log()
        assert "insecure" not in worker.log()
        env = environment(settings, "http://127.0.0.1:9", REDIS_URL=trusted)
        checked = CliRunner(env=env).invoke(commands, ["check"])
        assert checked.exit_code == 0, checked.output
        assert worker.terminate() == 0


@pytest.mark.parametrize(
    ("name", "trust", "reason"),
    [
        ("127.0.0.1", False, "is not trusted"),
        ("redis.example.com", True, "is not trusted: .*127.0.0.1"),
    ],
    ids=["another CA", "another host's certificate"],
)
def test_an_unverified_server_gets_no_password(
    authority: Authority,
    server: EmbeddedValkey,
    sandbox: Sandbox,
    settings: Settings,
    start_worker: StartWorker,
    name: str,
    trust: bool,
    reason: str,
) -> None:
    """A web app's ledger and doorbell, `check` and a worker do not send the password."""
    options = {"ssl_ca_certs": authority.file} if trust else {}
    with Relay(server.port, tls=authority.server(name)) as relay:
        untrusted = replace(settings, redis_url=url(relay, **options))

        with pytest.raises(QueueUnavailable, match=reason) as refusal:
            Producer(untrusted).enqueue(body())
        assert "ssl_ca_certs" in str(refusal.value)
        assert not Doorbell(untrusted).ring()
        with pytest.raises(Exception, match="certificate verify failed"):
            SeparateCelery("test", untrusted).control.ping()
        env = environment(untrusted, sandbox.url)
        checked = CliRunner(env=env).invoke(commands, ["check"])
        assert checked.exit_code == 4
        worker = start_worker(wait=False, REDIS_URL=untrusted.redis_url)
        eventually(lambda: worker.log().count("certificate verify failed") > 1, what="two attempts")

        assert worker.terminate() == 0
        assert PASSWORD not in worker.log() + checked.output
        # A handshake is counted a moment after its connection.
        eventually(lambda: relay.refused_handshakes == relay.connections > 5, what="the refusals")
        assert relay.received == b""


def test_verification_can_be_disabled_for_all_connections(
    authority: Authority, server: EmbeddedValkey, settings: Settings, start_worker: StartWorker
) -> None:
    """The URL disables it for all of them. `check` warns about it."""
    with Relay(server.port, tls=authority.server("redis.example.com")) as relay:
        chosen = replace(settings, redis_url=url(relay, ssl_cert_reqs="none"))
        start_worker(REDIS_URL=chosen.redis_url)
        producer = Producer(chosen)
        wait_until_ended(producer, [producer.enqueue(body())])
        assert Doorbell(chosen).ring()

        env = environment(chosen, "http://127.0.0.1:9")
        checked = CliRunner(env=env).invoke(commands, ["check"])
        assert "warning  HARASOCIAL_REDIS_URL: does not verify" in checked.output


def test_only_the_host_name_check_can_be_disabled(
    authority: Authority, server: EmbeddedValkey, settings: Settings
) -> None:
    """If the certificate has another host name, the CA is still verified."""
    with Relay(server.port, tls=authority.server("redis.example.com")) as relay:
        unnamed = {"ssl_check_hostname": "false"}
        trusted = url(relay, ssl_ca_certs=authority.file, **unnamed)
        assert Doorbell(replace(settings, redis_url=trusted)).ring()
        received = len(relay.received)
        assert not Doorbell(replace(settings, redis_url=url(relay, **unnamed))).ring()
        assert len(relay.received) == received
