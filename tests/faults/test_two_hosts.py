"""Two hosts: one loses its connection to Redis for longer than its leases, and then recovers.

Redis runs in a separate network namespace with two links, one for each worker "host". If a link is
down, packets are lost, and connections get neither replies nor errors. The hosts are in a namespace
too: a browser aborts its requests when a link is added to its own network.
"""

from __future__ import annotations

import ctypes
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import EmbeddedValkey, Sandbox
from harasocial_dispatch.sandbox.embedded_valkey import valkey_program
from harasocial_dispatch.schemas import Settings, State
from support.accounting import settle
from support.harness import WorkerProcess, body, environment, eventually

JOBS = 300


class TwoLinks:
    """Network namespaces for Redis and for the hosts, with two links between them."""

    _LINKS = ("link1", "link2")

    def __init__(self) -> None:
        tag = uuid.uuid4().hex[:6]
        self.of_redis, self.of_hosts = f"hsd-redis-{tag}", f"hsd-hosts-{tag}"
        self.addresses = [f"10.77.{i}.2" for i in (1, 2)]

    def make(self) -> None:
        for namespace in (self.of_redis, self.of_hosts):
            _ip("netns", "add", namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
        for i, link in enumerate(self._LINKS, start=1):
            ends = ("type", "veth", "peer", "name", link, "netns", self.of_redis)
            _ip("-n", self.of_hosts, "link", "add", link, *ends)
            for namespace, address in ((self.of_hosts, 1), (self.of_redis, 2)):
                _ip("-n", namespace, "addr", "add", f"10.77.{i}.{address}/24", "dev", link)
                _ip("-n", namespace, "link", "set", link, "up")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Use the hosts' namespace in this thread, and in what it starts."""
        with (
            Path("/proc/thread-self/ns/net").open() as before,
            Path("/run/netns", self.of_hosts).open() as inside,
        ):
            _enter(inside.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    def cut(self, index: int) -> None:
        # Cut Redis's side, so that the host's side stays up and packets are lost.
        _ip("-n", self.of_redis, "link", "set", self._LINKS[index], "down")

    def restore(self, index: int) -> None:
        _ip("-n", self.of_redis, "link", "set", self._LINKS[index], "up")

    def remove(self) -> None:
        for namespace in (self.of_redis, self.of_hosts):
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _enter(namespace: int) -> None:
    # `os.setns` needs Python 3.12.
    if ctypes.CDLL(None, use_errno=True).setns(namespace, 0):
        raise OSError(ctypes.get_errno(), "cannot enter the network namespace")


def server_behind(links: TwoLinks) -> EmbeddedValkey:
    """Return a server inside the namespace."""
    return EmbeddedValkey(
        command=["ip", "netns", "exec", links.of_redis, str(valkey_program())],
        host=links.addresses[1],
        protected_mode="no",
        bind=" ".join(links.addresses),
    )


@pytest.fixture
def links() -> Iterator[TwoLinks]:
    made = TwoLinks()
    try:
        made.make()
        with made.entered():
            yield made
    finally:
        made.remove()


@pytest.mark.needs("ip", "root")
def test_a_host_that_was_cut_off_records_nothing_stale(
    links: TwoLinks, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Promises 1, 4, 6: the other host takes over. The record shows which jobs were sent twice."""
    with ExitStack() as stack:
        server = stack.enter_context(server_behind(links))
        sandbox.latency_seconds = 0.3
        times = {"LEASE_SECONDS": 3, "CALL_DEADLINE_SECONDS": 2, "IN_FLIGHT": 8}
        urls = [f"redis://{address}:{server.port}/0" for address in links.addresses]
        hosts = []
        for url in urls:
            settings = Settings(redis_url=url)
            env = environment(settings, sandbox.url, **times)
            # A forked worker would be in the namespace of the process that it is forked from.
            host = WorkerProcess(env, tmp_path, "--concurrency", "1", new_interpreter=True)
            stack.callback(host.kill)
            hosts.append(host.start())
        producer = Producer(Settings(redis_url=urls[1]))
        stack.callback(producer.close)
        ids = producer.enqueue_many(body(metadata=f"job {i}") for i in range(JOBS)).accepted
        eventually(
            lambda: all(" received" in host.log() for host in hosts), what="both hosts at work"
        )
        eventually(lambda: sandbox.totals().posts >= 24, what="calls in flight")

        # when the first host loses the connection to Redis during its calls
        links.cut(0)
        began = time.monotonic()
        eventually(lambda: producer.count_states()[State.SENT] == JOBS or _old(began, 9))
        time.sleep(max(0.0, 8 - (time.monotonic() - began)))
        links.restore(0)

        # then all jobs are sent, and the record shows which were sent twice
        account = settle(producer, sandbox, ids)
        print(f"partition: {account}")  # noqa: T201 - figures of the run
        account.check(kills_excuse_doubles=True)
        assert {record.state for record in account.records.values()} == {State.SENT}
        assert 1 <= len(account.posted_twice) <= 8, "the calls in flight when the link was cut"

        # and the first host works again by itself
        hosts[1].kill()
        late = producer.enqueue(body(metadata="after the partition"))
        eventually(lambda: producer.get_job(late).state is State.SENT)


def _old(began: float, seconds: float) -> bool:
    return time.monotonic() - began > seconds
