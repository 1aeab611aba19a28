"""`check`, and its inspection of Redis."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import redis
from harasocial_dispatch.cli.commands.check import (
    Finding,
    check_endpoint,
    check_redis,
    check_settings,
    check_tokens,
    check_variable_names,
)
from harasocial_dispatch.ledger.reading.server_health import ServerHealth, inspect
from harasocial_dispatch.sandbox import DEFAULT_TOKEN, Sandbox
from harasocial_dispatch.schemas import QueueUnavailable, Settings
from support.command_line import Run
from support.harness import free_port, present
from support.scripted_server import CERTIFICATE, tls_context

HEALTHY: dict[str, Any] = {
    "version": "7.2.4",
    "maxmemory_policy": "noeviction",
    "appendonly": True,
    "is_replica": False,
    "clock_offset_seconds": 0.1,
}


def levels(findings: Iterable[Finding]) -> dict[str, str]:
    """Return subject → level of all findings that are not ok."""
    return {found.subject: found.level for found in findings if found.level != "ok"}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, {}),
        ({"version": "6.2"}, {}),
        ({"version": "6.0.16"}, {"Redis": "error"}),
        ({"version": "10.0.0"}, {}),
        ({"version": None}, {"Redis": "warning"}),
        ({"is_replica": True}, {"Redis": "error"}),
        ({"maxmemory_policy": "allkeys-lru"}, {"maxmemory-policy": "warning"}),
        ({"maxmemory_policy": None}, {"maxmemory-policy": "warning"}),
        ({"appendonly": False}, {"appendonly": "warning"}),
        ({"appendonly": None}, {"appendonly": "warning"}),
        ({"clock_offset_seconds": -30.0}, {"clock": "warning"}),
        ({"clock_offset_seconds": None}, {}),
        ({"other_version": "this namespace has keys of layout 2"}, {"namespace": "error"}),
    ],
)
def test_an_unusable_redis_is_an_error_and_an_unsafe_one_a_warning(
    changed: dict[str, Any], expected: dict[str, str]
) -> None:
    """An unusable server is an error; an unsafe or unreadable setting is a warning."""
    assert levels(check_redis(ServerHealth(**HEALTHY | changed), "there")) == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, set()),
        ({"lease_seconds": 20}, {"HARASOCIAL_LEASE_SECONDS"}),
        ({"lease_seconds": 20.1}, set()),
        ({"sent_ttl_seconds": 3600}, {"HARASOCIAL_SENT_TTL_SECONDS"}),
        ({"failed_ttl_seconds": 3600}, {"HARASOCIAL_FAILED_TTL_SECONDS"}),
        (
            {"expires_seconds": 60, "sent_ttl_seconds": 60, "retry_max_seconds": 61},
            {"HARASOCIAL_SENT_TTL_SECONDS"},
        ),
    ],
)
def test_inconsistent_times_are_warnings(settings: dict[str, Any], expected: set[str]) -> None:
    """The warning names the variable."""
    assert levels(check_settings(Settings(**settings))) == dict.fromkeys(expected, "warning")


def test_a_misspelled_setting_is_reported_with_a_suggestion() -> None:
    """A misspelled variable has no effect, so it is reported with the most similar setting."""
    names = ["HARASOCIAL_INFLIGHT", "HARASOCIAL_QQQQ", "HARASOCIAL_IN_FLIGHT", "PATH",
             "HARASOCIAL_TOKEN_FILE", "HARASOCIAL_TOKENS_FILE"]  # fmt: skip
    assert [(found.subject, found.message) for found in check_variable_names(names)] == [
        (
            "HARASOCIAL_INFLIGHT",
            "is not a setting and has no effect; did you mean HARASOCIAL_IN_FLIGHT?",
        ),
        ("HARASOCIAL_QQQQ", "is not a setting and has no effect"),
    ]


def test_check_warns_of_a_misspelled_setting(run: Run, environment: pytest.MonkeyPatch) -> None:
    """An unknown variable is not an error, because another program may use it."""
    environment.setenv("HARASOCIAL_TOKEN", "t")
    environment.setenv("HARASOCIAL_PAGERATE", "5")
    result = run("check")
    assert result.exit_code == 0
    assert "warning  HARASOCIAL_PAGERATE: is not a setting" in result.stdout


def test_no_token_names_the_variable_to_set() -> None:
    """The message mentions that a host that only enqueues needs no token."""
    (found,) = check_tokens(Settings())
    assert found.level == "error"
    assert "HARASOCIAL_TOKEN" in found.message
    assert "only enqueues" in found.message
    assert levels(check_tokens(Settings(token="secret"))) == {}


@pytest.mark.parametrize(
    ("text", "mode", "expected"),
    [
        ('{"500": "secret-token"}', 0o600, {}),
        ('{"500": "secret-token"}', 0o640, {"HARASOCIAL_TOKENS_FILE": "warning"}),
        ('{"500": "secret-token"}', 0o604, {"HARASOCIAL_TOKENS_FILE": "warning"}),
        ('{"500": 5}', 0o600, {"token": "error"}),
        ("secret-token", 0o600, {"token": "error"}),
        (None, 0o600, {"token": "error"}),
    ],
)
def test_the_tokens_file_must_be_valid_and_private(
    tmp_path: Path, text: str | None, mode: int, expected: dict[str, str]
) -> None:
    """No finding quotes a token."""
    file = tmp_path / "tokens.json"
    if text is not None:
        file.write_text(text)
        file.chmod(mode)
    findings = list(check_tokens(Settings(tokens_file=file)))
    assert levels(findings) == expected
    assert all("secret-token" not in found.message for found in findings)


@pytest.mark.parametrize(
    ("token", "status", "level", "text"),
    [
        (DEFAULT_TOKEN, None, "ok", "does not refuse the token (HTTP status 400)"),
        ("another-token", None, "error", "refuses the token (HTTP status 401)"),
        (DEFAULT_TOKEN, 503, "ok", "could not be tried (HTTP status 503)"),
        (DEFAULT_TOKEN, 404, "warning", "is HARASOCIAL_API_URL right?"),
    ],
)
def test_the_api_is_checked_without_sending_a_message(
    sandbox: Sandbox, token: str, status: int | None, level: str, text: str
) -> None:
    """The finding shows whether the API rejects the token, or that it is unknown."""
    sandbox.fail_with(status)
    (found,) = check_endpoint(Settings(token=token, api_url=sandbox.url))
    assert (found.level, found.subject) == (level, "API")
    assert text in found.message
    assert token not in found.message
    assert sandbox.totals().accepted == 0


@pytest.mark.parametrize("trusted", [True, False])
def test_the_apis_certificate_is_verified(trusted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server with an invalid certificate is an error, because no worker sends to it."""
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with Sandbox(tls=tls_context()) as sandbox:
        (found,) = check_endpoint(Settings(token=DEFAULT_TOKEN, api_url=sandbox.url))
    assert found.level == ("ok" if trusted else "warning")
    assert ("certificate is valid" if trusted else "has no valid certificate") in found.message


def test_an_api_that_cannot_be_reached_is_a_warning() -> None:
    """It is only a warning, because only workers need the API, and it may recover."""
    url = f"http://127.0.0.1:{free_port()}/"
    (found,) = check_endpoint(Settings(token="secret", api_url=url))
    assert found.level == "warning"
    assert "gives no reply (connection_failed" in found.message


def test_check_passes_with_warnings_only(run: Run, environment: pytest.MonkeyPatch) -> None:
    """The tests' server has no append-only file, which is a warning with exit status 0."""
    environment.setenv("HARASOCIAL_TOKEN", "secret-token")
    result = run("check")
    assert result.exit_code == 0
    assert "ok       Redis: 127.0.0.1:" in result.stdout
    assert "warning  appendonly: is off" in result.stdout
    assert "secret-token" not in result.output
    found = json.loads(run("check", "--json").stdout)
    assert found["status"] == "warning"
    assert {"level", "subject", "message"} == found["findings"][0].keys()


@pytest.mark.parametrize(
    ("variables", "status", "text"),
    [
        ({}, 2, "HARASOCIAL_TOKEN"),
        ({"HARASOCIAL_IN_FLIGHT": "many"}, 2, "HARASOCIAL_IN_FLIGHT"),
        ({"HARASOCIAL_REDIS_URL": "redis://127.0.0.1:1/0", "HARASOCIAL_TOKEN": "t"}, 4, "Redis"),
        ({"HARASOCIAL_REDIS_URL": "redis://127.0.0.1:1/0"}, 2, "HARASOCIAL_TOKEN"),
    ],
)
def test_check_fails_when_something_must_be_changed(
    run: Run, environment: pytest.MonkeyPatch, variables: dict[str, str], status: int, text: str
) -> None:
    """The exit status is 2 for settings and 4 for Redis. JSON has the same findings."""
    for name, value in variables.items():
        environment.setenv(name, value)
    result = run("check")
    assert result.exit_code == status
    assert any(line.startswith("error") and text in line for line in result.stdout.splitlines())
    as_json = run("check", "--json")
    assert as_json.exit_code == status
    assert json.loads(as_json.stdout)["status"] == "error"


def test_inspect_reads_a_real_server(redis_url: str) -> None:
    """The tests' server is supported, has the default policy, and uses this host's clock."""
    health = inspect(Settings(redis_url=redis_url))
    assert int(present(health.version).split(".")[0]) >= 7
    assert health.maxmemory_policy == "noeviction"
    assert health.appendonly is False
    assert health.is_replica is False
    assert abs(present(health.clock_offset_seconds)) < 1


def test_inspect_returns_none_without_permission(redis_url: str) -> None:
    """For a user without INFO and TIME, all values are None, without an error."""
    admin: Any = redis.Redis.from_url(redis_url)
    admin.execute_command("ACL", "SETUSER", "narrow", "on", ">pw", "+ping", "+select", "+client")
    narrow_url = redis_url.replace("redis://", "redis://narrow:pw@")
    assert inspect(Settings(redis_url=narrow_url)) == ServerHealth()
    with pytest.raises(QueueUnavailable, match="refused the user or password") as refusal:
        inspect(Settings(redis_url=narrow_url.replace(":pw@", ":wrong@")))
    assert "wrong" not in str(refusal.value)
    admin.execute_command("ACL", "DELUSER", "narrow")
