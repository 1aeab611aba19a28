"""Our broker connection survives faults that end a worker with kombu's own transport."""

from __future__ import annotations

from typing import Any

import kombu
import pytest
import redis
from harasocial_dispatch.broker.separate_celery import SeparateCelery
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.schemas import Settings
from redis.exceptions import ResponseError


@pytest.mark.parametrize("ours", [False, True], ids=["kombu's transport", "ours"])
def test_an_unacknowledged_doorbell_is_not_returned(ours: bool, settings: Settings) -> None:
    """To return it over a broken connection ends a worker's main process."""
    connection = (
        SeparateCelery("test", settings).connection_for_read()
        if ours
        else kombu.Connection(settings.redis_url)
    )
    app = SeparateCelery("test", settings)
    app.send_task("harasocial.dispatch")
    queue = kombu.Queue(app.conf.task_default_queue)(connection.default_channel)

    assert queue.get(no_ack=False) is not None
    connection.close()

    left = redis.Redis.from_url(settings.redis_url).llen(app.conf.task_default_queue)
    assert left == (0 if ours else 1)


def test_the_transport_reconnects_after_a_refusal(settings: Settings) -> None:
    """Celery continues after a connection error, and ends after any other error."""
    connection = SeparateCelery("test", settings).connection_for_read()
    with pytest.raises(connection.connection_errors) as refused:
        channel: Any = connection.channel()
        channel.client.execute_command("NO-SUCH-COMMAND")
    assert isinstance(refused.value, ResponseError)
    connection.release()


def test_the_delay_between_connection_attempts_is_short() -> None:
    """The delay is at most two seconds. kombu's own delay grows to thirty."""
    waits: list[float] = []

    def note(_: Exception, interval: float) -> None:
        waits.append(interval)
        if len(waits) == 6:
            raise KeyboardInterrupt

    connection = SeparateCelery(
        "test", Settings(redis_url="redis://127.0.0.1:1/0"), socket_connect_timeout=1
    ).connection_for_read()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("kombu.utils.functional.sleep", lambda _: None)
        connection.ensure_connection(note)

    assert max(waits) <= 2


def test_connections_with_other_logins_are_not_shared() -> None:
    """Kombu shares pools in a process. A doorbell must not use the login of another user."""
    with EmbeddedValkey() as server:
        admin: Any = redis.Redis.from_url(server.url)
        admin.execute_command("ACL", "SETUSER", "one", "on", ">a", "~one*", "&*", "+@all")
        admin.execute_command("ACL", "SETUSER", "two", "on", ">b", "~*", "&*", "+@all")
        for user, password in (("one", "a"), ("two", "b")):
            url = server.url.replace("redis://", f"redis://{user}:{password}@")
            app = SeparateCelery("test", Settings(redis_url=url))
            with app.connection_or_acquire() as connection:
                assert connection.default_channel.client.acl_whoami() == user
