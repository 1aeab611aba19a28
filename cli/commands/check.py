"""`check`: check the settings, the API and Redis for errors and unsafe values."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from difflib import get_close_matches
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

import click

from ...ledger.connection import address
from ...ledger.reading.server_health import ServerHealth, inspect
from ...schemas import (
    QueueUnavailable,
    Settings,
    SettingsError,
    parse_redis_url,
    rate_problem,
)
from ...schemas.settings import PREFIX
from ..input.options import examples, json_option
from ..output.printing import print_json, shown

#: The oldest Redis version that the scripts support.
OLDEST_VERSION = (6, 2)
#: Clocks that are synchronized by NTP differ by less.
_CLOCK_TOLERANCE_SECONDS = 2.0

#: Timeout for the API's reply.
_ENDPOINT_TIMEOUT_SECONDS = 10.0

_COLORS = {"ok": "green", "warning": "yellow", "error": "red"}


class Finding(NamedTuple):
    """The result of one check: its level ("ok", "warning" or "error"), subject and message."""

    level: str
    subject: str
    message: str


_ok, _warning, _error = (partial(Finding, level) for level in _COLORS)


@click.command(epilog=examples("check", "check --json"))
@json_option
@click.pass_context
def check(ctx: click.Context, as_json: bool) -> None:
    """Check the settings, the API and Redis.

    If a token is set, checks that the API does not refuse it; no message is sent. Connects to
    Redis as the ledger does, and through Celery as workers and doorbells do. Prints how to fix each
    problem.
    Exit status: 0 if there are no errors (warnings are allowed); 2 if something must be changed;
    4 if Redis is not available.
    """
    findings: list[Finding] = []
    unreachable: list[Finding] = []
    try:
        settings = Settings.from_environment()
        findings += [_ok("settings", "can be read"), *check_settings(settings)]
        findings += check_variable_names(os.environ)
        tokens = list(check_tokens(settings))
        findings += tokens
        if all(found.level != "error" for found in tokens):
            findings += check_endpoint(settings)
        for subject, check_connection in _CONNECTIONS.items():
            try:
                findings += check_connection(settings)
            except QueueUnavailable as error:
                reason = str(error).removeprefix("Redis at ")
                unreachable.append(_error(subject, reason))
    except SettingsError as error:
        findings.append(_error("settings", str(error)))
    _print(findings + unreachable, as_json)
    if any(found.level == "error" for found in findings):
        ctx.exit(2)
    if unreachable:
        ctx.exit(4)


def _print(findings: list[Finding], as_json: bool) -> None:
    if as_json:
        worst = max((found.level for found in findings), key=list(_COLORS).index)
        print_json({"status": worst, "findings": [found._asdict() for found in findings]})
        return
    for level, subject, message in findings:
        label = click.style(f"{level:<8}", fg=_COLORS[level])
        click.echo(f"{label} {subject}: {shown(message)}")


def check_settings(settings: Settings) -> Iterator[Finding]:
    """Yield warnings about unsafe values and combinations of settings."""
    if settings.lease_seconds <= settings.call_deadline_seconds:
        yield _warning(
            "HARASOCIAL_LEASE_SECONDS",
            f"is {settings.lease_seconds:g}, not more than HARASOCIAL_CALL_DEADLINE_SECONDS "
            f"({settings.call_deadline_seconds:g}): calls end after "
            f"{settings.safe_call_deadline_seconds:g} s, so that no call outlasts its lease; "
            "make the lease longer",
        )
    yield from _page_rate(settings)
    yield from _tls(settings)
    kept = {
        "HARASOCIAL_SENT_TTL_SECONDS": settings.sent_ttl_seconds,
        "HARASOCIAL_FAILED_TTL_SECONDS": settings.failed_ttl_seconds,
    }
    for name, ttl_seconds in kept.items():
        if ttl_seconds < settings.expires_seconds:
            yield _warning(
                name,
                f"is {ttl_seconds:g}, less than HARASOCIAL_EXPIRES_SECONDS "
                f"({settings.expires_seconds:g}): a job and its idempotency key may be deleted "
                "while the same message can still be enqueued again; make it longer",
            )
        elif ttl_seconds < settings.retry_max_seconds:
            yield _warning(
                name,
                f"is {ttl_seconds:g}, less than HARASOCIAL_RETRY_MAX_SECONDS "
                f"({settings.retry_max_seconds:g}), the longest wait for a retry; make it longer",
            )


def _page_rate(settings: Settings) -> Iterator[Finding]:
    name = "HARASOCIAL_PAGE_RATE"
    problem = rate_problem(settings.page_rate, settings.page_burst)
    if problem:
        yield _warning(name, f"{problem}; the default, 30 with a burst of 10, is safe")


def _tls(settings: Settings) -> Iterator[Finding]:
    tls = parse_redis_url(settings.redis_url).tls
    if tls and tls["ssl_cert_reqs"] == "none":
        what, remedy = "the server's certificate", "ssl_cert_reqs=none"
    elif tls and not tls["ssl_check_hostname"]:
        what, remedy = "the host name in the server's certificate", "ssl_check_hostname=false"
    else:
        return
    yield _warning(
        "HARASOCIAL_REDIS_URL",
        f"does not verify {what}: another server could take its place and get the password; "
        f"remove {remedy}, and set ssl_ca_certs= to the file of its CA",
    )


def check_variable_names(names: Iterable[str]) -> Iterator[Finding]:
    """Yield warnings about environment variables that look like misspelled settings."""
    known = {field.name.upper() for field in fields(Settings)}
    for name in sorted(name for name in names if name.startswith(PREFIX)):
        setting = name.removeprefix(PREFIX)
        # Each setting can be read from a file, named by the variable with the suffix _FILE.
        if {setting, setting.removesuffix("_FILE")} & known:
            continue
        meant = get_close_matches(setting, known, n=1)
        hint = f"; did you mean {PREFIX}{meant[0]}?" if meant else ""
        yield _warning(name, f"is not a setting and has no effect{hint}")


def check_tokens(settings: Settings) -> Iterator[Finding]:
    """Yield whether tokens are set, and whether only their owner can read them. Prints no token."""
    # Imported here: the command line must also work without the worker's dependencies.
    from ...worker.tokens import Tokens  # noqa: PLC0415

    try:
        Tokens(settings)
    except SettingsError as error:
        hint = ""
        if settings.token is None and settings.tokens_file is None:
            hint = " (only a worker needs one; a host that only enqueues does not)"
        yield _error("token", f"{error}{hint}")
        return
    file = settings.tokens_file
    if file is not None and file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield _warning(
            "HARASOCIAL_TOKENS_FILE",
            f"other users of this host can read or change it; run: chmod 600 {file}",
        )
    else:
        yield _ok("token", "is set")


def check_endpoint(settings: Settings) -> Iterator[Finding]:
    """Yield whether the API can be reached, and whether it refuses a token. Sends no message.

    The request's body is an empty object, which has no recipient. Only one token is checked.
    """
    from ...worker.http import CallFailed, call_once  # noqa: PLC0415 - as above
    from ...worker.tokens import read_tokens  # noqa: PLC0415

    by_page = read_tokens(settings.tokens_file) if settings.tokens_file else {}
    token = settings.token or next(iter(by_page.values()), None)
    if token is None:
        return
    deadline_seconds = min(settings.call_deadline_seconds, _ENDPOINT_TIMEOUT_SECONDS)
    ending = call_once(replace(settings, call_deadline_seconds=deadline_seconds), {}, token)
    parts = urlsplit(settings.api_url)
    where = parts.netloc
    if isinstance(ending, CallFailed):
        is_certificate = "SSL" in ending.detail or "Certificate" in ending.detail
        what = "has no valid certificate" if is_certificate else "gives no reply"
        yield _warning(
            "API",
            f"{where} {what} ({ending.kind}: {ending.detail}); only workers need it: check "
            "HARASOCIAL_API_URL, HARASOCIAL_PROXY_URL and this host's network",
        )
    elif ending.status in (401, 403):
        yield _error(
            "API",
            f"{where} refuses the token (HTTP status {ending.status}); set HARASOCIAL_TOKEN "
            "or HARASOCIAL_TOKENS_FILE to a token with the scope social.conv",
        )
    elif ending.status == 404 or 300 <= ending.status < 400:
        yield _warning(
            "API",
            f"{where} replies with HTTP status {ending.status}: is HARASOCIAL_API_URL right?",
        )
    else:
        secure = ", its certificate is valid" if parts.scheme == "https" else ""
        known = 200 <= ending.status < 500 and ending.status != 429
        answer = "it does not refuse the token" if known else "the token could not be tried"
        yield _ok(
            "API",
            f"{where} replies{secure}, {answer} (HTTP status {ending.status})",
        )


def check_redis(health: ServerHealth, where: str) -> Iterator[Finding]:
    """Yield the state of the Redis server at the address `where`, and its unsafe settings."""
    yield from _version(health.version, where)
    if health.is_replica:
        yield _error(
            "Redis",
            "is a read-only replica; set HARASOCIAL_REDIS_URL to the primary",
        )
    if health.other_version:
        yield _error("namespace", health.other_version)
    yield from _policy(health.maxmemory_policy)
    yield from _appendonly(health.appendonly)
    offset = health.clock_offset_seconds
    if offset is not None and abs(offset) > _CLOCK_TOLERANCE_SECONDS:
        direction = "ahead of" if offset > 0 else "behind"
        yield _warning(
            "clock",
            f"Redis is {abs(offset):.1f} s {direction} this host: send_at, expires_at and --since "
            "are off by the same time; synchronize both clocks by NTP",
        )
    elif offset is not None:
        yield _ok("clock", f"differs from this host's by {abs(offset):.1f} s")


def _look_at_ledger(settings: Settings) -> Iterator[Finding]:
    return check_redis(inspect(settings), address(settings.redis_url))


def _look_at_broker(settings: Settings) -> Iterator[Finding]:
    # Imported here: Celery is slow to import, and only this command needs it.
    from ...broker.reachability import inspect_broker  # noqa: PLC0415

    inspect_broker(settings)
    yield _ok("Celery", f"connects to its broker, {address(settings.redis_url)}")


#: The connections to check, by the subject of their findings.
_CONNECTIONS: dict[str, Callable[[Settings], Iterator[Finding]]] = {
    "Redis": _look_at_ledger,
    "Celery": _look_at_broker,
}


def _version(version: str | None, where: str) -> Iterator[Finding]:
    oldest = ".".join(map(str, OLDEST_VERSION))
    numbers = tuple(int(part) for part in (version or "").split(".") if part.isdecimal())
    if not numbers:
        yield _warning(
            "Redis",
            f"{where} replies, but does not report its version; it must be {oldest} or newer",
        )
    elif numbers < OLDEST_VERSION:
        yield _error("Redis", f"{where} has version {version}; it must be {oldest} or newer")
    else:
        yield _ok("Redis", f"{where} replies, version {version}")


def _policy(policy: str | None) -> Iterator[Finding]:
    if policy is None:
        yield _warning("maxmemory-policy", "cannot be read; make sure that it is noeviction")
    elif policy != "noeviction":
        yield _warning(
            "maxmemory-policy",
            f"is {policy}: when memory is full, Redis may delete jobs; "
            "run: CONFIG SET maxmemory-policy noeviction, and set it in redis.conf",
        )
    else:
        yield _ok("maxmemory-policy", "is noeviction")


def _appendonly(appendonly: bool | None) -> Iterator[Finding]:
    if appendonly is None:
        yield _warning("appendonly", "cannot be read; make sure that it is on")
    elif not appendonly:
        yield _warning(
            "appendonly",
            "is off: if Redis crashes, jobs since its last snapshot are lost; "
            "run: CONFIG SET appendonly yes, and set it in redis.conf",
        )
    else:
        yield _ok("appendonly", "is on")
