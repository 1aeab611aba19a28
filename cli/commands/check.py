"""`check`: whether settings, the API and Redis are fine, and what in them is unsafe."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import NamedTuple
from urllib.parse import urlsplit

import click

from ...broker.reachability import inspect_broker
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

#: The oldest Redis that the scripts are written for.
OLDEST_VERSION = (6, 2)
#: Clocks of two well-kept hosts differ by less.
_CLOCK_TOLERANCE_SECONDS = 2.0

#: For the API's reply.
_ENDPOINT_TIMEOUT_SECONDS = 10.0

_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}


class Finding(NamedTuple):
    """One thing looked at: "ok", "warning" or "error"; what it is about; what to do."""

    level: str
    subject: str
    message: str


@click.command(epilog=examples("check", "check --json"))
@json_option
@click.pass_context
def check(ctx: click.Context, as_json: bool) -> None:
    """Check the settings, the API and Redis.

    If a token is set, asks the API whether it refuses it; no message is sent. Connects to Redis as
    the ledger does, and through Celery as workers and doorbells do. Says what to do about all that
    is wrong or unsafe.
    Exit status 0 also with warnings; 2 if something must be changed; 4 if Redis is not reachable.
    """
    findings: list[Finding] = []
    unreachable: list[Finding] = []
    try:
        settings = Settings.from_environment()
        findings += [Finding("ok", "settings", "can be read"), *look_at_settings(settings)]
        findings += look_at_names(os.environ)
        tokens = list(look_at_tokens(settings))
        findings += tokens
        if all(found.level != "error" for found in tokens):
            findings += look_at_endpoint(settings)
        for subject, look in _CONNECTIONS.items():
            try:
                findings += look(settings)
            except QueueUnavailable as error:
                reason = str(error).removeprefix("Redis at ")
                unreachable.append(Finding("error", subject, reason))
    except SettingsError as error:
        findings.append(Finding("error", "settings", str(error)))
    _print(findings + unreachable, as_json)
    if any(found.level == "error" for found in findings):
        ctx.exit(2)
    if unreachable:
        ctx.exit(4)


def _print(findings: list[Finding], as_json: bool) -> None:
    if as_json:
        worst = max((found.level for found in findings), key=list(_COLOURS).index)
        print_json({"status": worst, "findings": [found._asdict() for found in findings]})
        return
    for level, subject, message in findings:
        label = click.style(f"{level:<8}", fg=_COLOURS[level])
        click.echo(f"{label} {subject}: {shown(message)}")


def look_at_settings(settings: Settings) -> Iterator[Finding]:
    """Yield what is unsafe in how the times fit each other."""
    if settings.lease_seconds <= settings.call_deadline_seconds:
        yield Finding(
            "warning",
            "HARASOCIAL_LEASE_SECONDS",
            f"is {settings.lease_seconds:g}, not more than HARASOCIAL_CALL_DEADLINE_SECONDS "
            f"({settings.call_deadline_seconds:g}): calls are cut off after "
            f"{settings.safe_call_deadline_seconds:g} s, so that none outlasts its lease; "
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
            yield Finding(
                "warning",
                name,
                f"is {ttl_seconds:g}, less than HARASOCIAL_EXPIRES_SECONDS "
                f"({settings.expires_seconds:g}): a job and its idempotency key may be forgotten "
                "while its message could still be asked for again; make it longer",
            )
        elif ttl_seconds < settings.retry_max_seconds:
            yield Finding(
                "warning",
                name,
                f"is {ttl_seconds:g}, less than HARASOCIAL_RETRY_MAX_SECONDS "
                f"({settings.retry_max_seconds:g}), the longest wait for a retry; make it longer",
            )


def _page_rate(settings: Settings) -> Iterator[Finding]:
    name = "HARASOCIAL_PAGE_RATE"
    problem = rate_problem(settings.page_rate, settings.page_burst)
    if problem:
        yield Finding("warning", name, f"{problem}; the default, 30 with a burst of 10, is safe")


def _tls(settings: Settings) -> Iterator[Finding]:
    tls = parse_redis_url(settings.redis_url).tls
    if tls and tls["ssl_cert_reqs"] == "none":
        what, remedy = "the server's certificate", "ssl_cert_reqs=none"
    elif tls and not tls["ssl_check_hostname"]:
        what, remedy = "the host name in the server's certificate", "ssl_check_hostname=false"
    else:
        return
    yield Finding(
        "warning",
        "HARASOCIAL_REDIS_URL",
        f"does not verify {what}: another server could take its place and get the password; "
        f"remove {remedy}, and name the file of its CA by ssl_ca_certs=",
    )


def look_at_names(names: Iterable[str]) -> Iterator[Finding]:
    """Yield which variables of the environment look like settings and are none: misspelt ones."""
    known = {field.name.upper() for field in fields(Settings)}
    for name in sorted(name for name in names if name.startswith(PREFIX)):
        setting = name.removeprefix(PREFIX)
        # Each may come from a file, under its name followed by _FILE.
        if {setting, setting.removesuffix("_FILE")} & known:
            continue
        meant = get_close_matches(setting, known, n=1)
        hint = f"; is {PREFIX}{meant[0]} meant?" if meant else ""
        yield Finding("warning", name, f"is no setting, and does nothing{hint}")


def look_at_tokens(settings: Settings) -> Iterator[Finding]:
    """Yield whether there are tokens, and whether they are kept to their owner. Quotes none."""
    # Here, since the command line must also work where no worker is set up.
    from ...worker.tokens import Tokens  # noqa: PLC0415

    try:
        Tokens(settings)
    except SettingsError as error:
        hint = ""
        if settings.token is None and settings.tokens_file is None:
            hint = " (only a worker needs one; a host that just enqueues may go without)"
        yield Finding("error", "token", f"{error}{hint}")
        return
    file = settings.tokens_file
    if file is not None and file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield Finding(
            "warning",
            "HARASOCIAL_TOKENS_FILE",
            f"others on this host may read or change it; do: chmod 600 {file}",
        )
    else:
        yield Finding("ok", "token", "is set")


def look_at_endpoint(settings: Settings) -> Iterator[Finding]:
    """Yield whether the API can be reached, and whether it refuses a token. Sends no message.

    The request's body is an empty object, which has no recipient. Of many tokens, one is tried.
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
        yield Finding(
            "warning",
            "API",
            f"{where} {what} ({ending.kind}: {ending.detail}); only workers need it: see "
            "HARASOCIAL_API_URL, HARASOCIAL_PROXY_URL and this host's network",
        )
    elif ending.status in (401, 403):
        yield Finding(
            "error",
            "API",
            f"{where} refuses the token (HTTP status {ending.status}); set HARASOCIAL_TOKEN "
            "or HARASOCIAL_TOKENS_FILE to one with the scope social.conv",
        )
    elif ending.status == 404 or 300 <= ending.status < 400:
        yield Finding(
            "warning",
            "API",
            f"{where} answers with HTTP status {ending.status}: is HARASOCIAL_API_URL right?",
        )
    else:
        secure = ", its certificate is valid" if parts.scheme == "https" else ""
        known = 200 <= ending.status < 500 and ending.status != 429
        answer = "it does not refuse the token" if known else "the token could not be tried"
        yield Finding(
            "ok",
            "API",
            f"{where} answers{secure}, {answer} (HTTP status {ending.status})",
        )


def look_at_redis(health: ServerHealth, where: str) -> Iterator[Finding]:
    """Yield what Redis at the address `where` says of itself, and what of that is unsafe."""
    yield from _version(health.version, where)
    if health.is_replica:
        yield Finding(
            "error",
            "Redis",
            "is a read-only replica; point HARASOCIAL_REDIS_URL to the primary",
        )
    if health.other_version:
        yield Finding("error", "namespace", health.other_version)
    yield from _policy(health.maxmemory_policy)
    yield from _appendonly(health.appendonly)
    offset = health.clock_offset_seconds
    if offset is not None and abs(offset) > _CLOCK_TOLERANCE_SECONDS:
        direction = "ahead of" if offset > 0 else "behind"
        yield Finding(
            "warning",
            "clock",
            f"Redis is {abs(offset):.1f} s {direction} this host: send_at, expires_at and --since "
            "are off by as much; synchronise both by NTP",
        )
    elif offset is not None:
        yield Finding("ok", "clock", f"differs from this host's by {abs(offset):.1f} s")


def _look_at_ledger(settings: Settings) -> Iterator[Finding]:
    return look_at_redis(inspect(settings), address(settings.redis_url))


def _look_at_broker(settings: Settings) -> Iterator[Finding]:
    inspect_broker(settings)
    yield Finding("ok", "Celery", f"connects to its broker, {address(settings.redis_url)}")


#: What is connected to, by what it is called in a finding.
_CONNECTIONS: dict[str, Callable[[Settings], Iterator[Finding]]] = {
    "Redis": _look_at_ledger,
    "Celery": _look_at_broker,
}


def _version(version: str | None, where: str) -> Iterator[Finding]:
    oldest = ".".join(map(str, OLDEST_VERSION))
    numbers = tuple(int(part) for part in (version or "").split(".") if part.isdecimal())
    if not numbers:
        yield Finding(
            "warning",
            "Redis",
            f"{where} answers, but does not tell its version; it must be {oldest} or newer",
        )
    elif numbers < OLDEST_VERSION:
        yield Finding(
            "error", "Redis", f"{where} has version {version}; it must be {oldest} or newer"
        )
    else:
        yield Finding("ok", "Redis", f"{where} answers, version {version}")


def _policy(policy: str | None) -> Iterator[Finding]:
    if policy is None:
        yield Finding(
            "warning", "maxmemory-policy", "cannot be seen here; make sure that it is noeviction"
        )
    elif policy != "noeviction":
        yield Finding(
            "warning",
            "maxmemory-policy",
            f"is {policy}: when memory is full, Redis may throw jobs away; "
            "do: CONFIG SET maxmemory-policy noeviction, and set it in redis.conf",
        )
    else:
        yield Finding("ok", "maxmemory-policy", "is noeviction")


def _appendonly(appendonly: bool | None) -> Iterator[Finding]:
    if appendonly is None:
        yield Finding("warning", "appendonly", "cannot be seen here; make sure that it is on")
    elif not appendonly:
        yield Finding(
            "warning",
            "appendonly",
            "is off: if Redis crashes, jobs since its last snapshot are lost; "
            "do: CONFIG SET appendonly yes, and set it in redis.conf",
        )
    else:
        yield Finding("ok", "appendonly", "is on")
