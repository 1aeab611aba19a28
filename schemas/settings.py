"""Read settings from the environment or a `.env` file. Their prefix is `HARASOCIAL_`.

A value may also come from a file: `HARASOCIAL_TOKEN_FILE=/run/secrets/token` sets
`HARASOCIAL_TOKEN`.

The settings of a framework, such as Django's, can take precedence: see `use_host_settings`.

`_read` lists every variable with its default and its bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from environs import Env, EnvError, FileAwareEnv, validate
from marshmallow import ValidationError

from .errors import SettingsError
from .language import Language
from .setting_checks import (
    API_URL,
    check_host,
    check_language,
    check_log_format,
    check_namespace,
    check_proxy_url,
    check_redis_url,
    check_safe_url,
    check_token,
    check_user_and_password,
)
from .states import OutcomeClass

PREFIX = "HARASOCIAL_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings. Names include the unit. The repr contains no secrets."""

    #: Bearer token with the scope `social.conv`, for each page that `HARASOCIAL_TOKENS_FILE` does
    #: not list.
    token: str | None = field(default=None, repr=False)
    #: Name of a JSON file that maps a page id to its token. Workers reload it when it changes.
    tokens_file: Path | None = None
    #: URL of the API.
    api_url: str = API_URL
    #: Redis or Valkey: `redis://`, `rediss://` (TLS, verified) or `unix://`, with options such as
    #: `?ssl_ca_certs=ca.pem`.
    redis_url: str = field(default="redis://127.0.0.1:6379/0", repr=False)
    #: Prefix of every key, queue and channel in Redis. Namespaces are isolated from each other.
    namespace: str = "harasocial"
    #: Deadline of a job that sets none, counted from `send_at` or the call of `enqueue`. The
    #: default is Messenger's window.
    expires_seconds: float = 24.0 * 3600
    #: Attempts before a job fails. Throttled attempts do not count.
    max_attempts: int = 12
    #: Longest wait after the first failed attempt. It doubles with each further attempt, and the
    #: actual wait is a random part of it.
    retry_base_seconds: float = 2.0
    #: Longest wait between two attempts.
    retry_max_seconds: float = 900.0
    #: Timeout for connecting to the API.
    connect_timeout_seconds: float = 5.0
    #: Timeout between two received parts of a reply.
    read_timeout_seconds: float = 15.0
    #: Deadline for a whole call, including a slow reply.
    call_deadline_seconds: float = 20.0
    #: How long a claim is valid. After that, other workers take over the jobs of a killed worker.
    #: Must be longer than `HARASOCIAL_CALL_DEADLINE_SECONDS`.
    lease_seconds: float = 60.0
    #: Maximum number of calls in flight in each process. Each needs a connection.
    in_flight: int = 256
    #: Maximum rate of a page in messages per second, over all workers; 0 means no limit. Facebook
    #: disables the inbox of a page that sends more than 40 in a second; with these defaults, none
    #: does.
    page_rate: float = 30.0
    #: Messages that a page may send at once before `HARASOCIAL_PAGE_RATE` applies.
    page_burst: int = 10
    #: Maximum rate of all pages of one token in calls per second, over all workers; 0 means no
    #: limit. Haravan documents 4 per second and 80 at once per shop. A limit that a reply reports
    #: (`X-Haravan-Api-Call-Limit`) applies in any case.
    token_rate: float = 0.0
    #: Calls that a token may make at once before `HARASOCIAL_TOKEN_RATE` applies.
    token_burst: int = 80
    #: How long a sent job and its idempotency key are kept.
    sent_ttl_seconds: float = 24.0 * 3600
    #: How long a failed or canceled job and its idempotency key are kept.
    failed_ttl_seconds: float = 30.0 * 24 * 3600
    #: How long the counts of a campaign are kept after its last change, and the idempotency keys of
    #: its jobs after their end.
    campaign_ttl_seconds: float = 30.0 * 24 * 3600
    #: Login of Flower, `user:password`. The password has at least 15 characters.
    flower_basic_auth: str | None = field(default=None, repr=False)
    #: Whether Flower also shows each sent job as a task.
    flower_successes: bool = False
    #: Classes of error codes, such as `551=transient,10/999=permanent`. They take precedence over
    #: the built-in list.
    error_code_classes: dict[str, OutcomeClass] = field(default_factory=dict)
    #: Proxy for the calls, such as `http://proxy:3128`. Variables such as `HTTP_PROXY` are not
    #: used.
    proxy_url: str | None = field(default=None, repr=False)
    #: Address where a worker serves its metrics to Prometheus.
    metrics_host: str = "127.0.0.1"
    #: Port where a worker serves its metrics; 0 disables them.
    metrics_port: int = 0
    #: Format of the worker's log: `text`, or `json` for one object per line.
    log_format: str = "text"
    #: Language in which commands explain error codes: `en`, or `vi` for Vietnamese. Flower's pages
    #: follow the browser.
    language: Language = "en"

    @property
    def safe_call_deadline_seconds(self) -> float:
        """The deadline of a call, limited so that no call outlasts its lease."""
        return min(self.call_deadline_seconds, 0.8 * self.lease_seconds)

    @classmethod
    def from_environment(cls, env_file: Path | None = Path(".env")) -> Settings:
        """Read the environment, and `env_file` for variables that the environment does not set.

        The settings given to `use_host_settings` take precedence over both.

        Raises:
            SettingsError: with the variable or setting, and what was expected.
        """
        env = _Environment()
        try:
            if env_file is not None and env_file.is_file():
                env.read_env(env_file, recurse=False)
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{env_file} cannot be read: {error}") from None
        try:
            return _read(env)
        except EnvError as error:
            raise SettingsError(_with_host_name(_without_value(error))) from None
        except (OSError, ValueError):
            # The text of the error is not shown. It may quote the content of the file, or the
            # secret itself if it was given in place of a file name.
            raise SettingsError(
                f"{_unreadable_file(env)} must be the name of a readable text file (UTF-8)"
            ) from None


#: The settings of the host application's framework, as texts, by name without the prefix.
_host_settings: dict[str, str] = {}


def use_host_settings(values: Mapping[str, Any]) -> None:
    """Use settings of the host application's framework before those of the environment.

    Args:
        values: the values by name without the prefix, such as `{"PAGE_RATE": 20}`. A value is a
            str, as in the environment, or a number, a bool, a path or (`ERROR_CODE_CLASSES`) a
            mapping. For None, the environment applies.

    Raises:
        SettingsError: with the name of a setting that does not exist or whose value has a wrong
            type. `from_environment` validates the values themselves.
    """
    if not isinstance(values, Mapping):
        raise SettingsError(f"HARASOCIAL must be a dict of settings, not {type(values).__name__}")
    known = {setting.name.upper() for setting in fields(Settings)}
    for name in values:
        if name not in known:
            meant = get_close_matches(f"{name}".upper().removeprefix(PREFIX), known, n=1)
            hint = f"; did you mean {meant[0]!r}?" if meant else ""
            raise SettingsError(f"{_host_name(name)} is not a setting{hint}")
    texts = {name: _as_text(name, value) for name, value in values.items() if value is not None}
    _host_settings.clear()
    _host_settings.update(texts)


def _as_text(name: str, value: Any) -> str:
    """Return a value as text, as it would be in the environment."""
    match value:
        case bool():
            return str(value).lower()
        case str() | int() | float() | Path():
            return str(value)
        case Mapping():
            return ",".join(f"{key}={each}" for key, each in value.items())
    raise SettingsError(
        f"{_host_name(name)} must be a str, number, bool, path or dict, not {type(value).__name__}"
    )


def _host_name(name: object) -> str:
    return f"HARASOCIAL[{name!r}]"


def _with_host_name(text: str) -> str:
    """Replace the variable at the beginning of an error with the name of the host's setting."""
    variable, rest = text.partition(" ")[::2]
    name = variable.removeprefix(PREFIX)
    return f"{_host_name(name)} {rest}" if name in _host_settings else text


class _Environment(FileAwareEnv):
    """The host's settings, then the environment.

    A variable such as HARASOCIAL_TOKEN_FILE names a file that contains the value, as is usual for
    container secrets.
    """

    def __init__(self) -> None:
        super().__init__(prefix=PREFIX, strip_whitespace=True)

    def _get_value(self, env_key: str, default: Any) -> Any:
        given = _host_settings.get(env_key.removeprefix(PREFIX))
        return super()._get_value(env_key, default) if given is None else given


def _unreadable_file(env: Env) -> str:
    """Return the name of the variable whose file cannot be read."""
    for setting in fields(Settings):
        name = f"{setting.name.upper()}_FILE"
        try:
            file = env.str(name, "")
            if file:
                Path(file).read_text()
        except (OSError, ValueError):
            return PREFIX + name
    return f"a {PREFIX}…_FILE variable"


def _read(env: Env) -> Settings:
    default = Settings()

    def number(name: str, lowest: float, highest: float) -> Any:
        value = getattr(default, name.lower())
        read: Callable[..., Any] = env.int if isinstance(value, int) else env.float
        kind = "whole number" if isinstance(value, int) else "number"
        expected = f"must be a {kind} from {lowest:.10g} to {highest:.10g}"
        return read(
            name,
            value,
            validate=validate.Range(lowest, highest, error=expected),
            error_messages=dict.fromkeys(("invalid", "special", "too_large"), expected),
        )

    tokens_file = env.str("TOKENS_FILE", "")
    return Settings(
        token=env.str("TOKEN", "", validate=check_token) or None,
        tokens_file=Path(tokens_file) if tokens_file else None,
        api_url=env.str("API_URL", API_URL, validate=check_safe_url),
        redis_url=env.str("REDIS_URL", default.redis_url, validate=check_redis_url),
        namespace=env.str("NAMESPACE", default.namespace, validate=check_namespace),
        expires_seconds=number("EXPIRES_SECONDS", 1, 366 * 86400),
        max_attempts=number("MAX_ATTEMPTS", 1, 100),
        retry_base_seconds=number("RETRY_BASE_SECONDS", 0.01, 3600),
        retry_max_seconds=number("RETRY_MAX_SECONDS", 0.01, 86400),
        connect_timeout_seconds=number("CONNECT_TIMEOUT_SECONDS", 0.05, 300),
        read_timeout_seconds=number("READ_TIMEOUT_SECONDS", 0.05, 300),
        call_deadline_seconds=number("CALL_DEADLINE_SECONDS", 0.1, 600),
        lease_seconds=number("LEASE_SECONDS", 0.2, 3600),
        in_flight=number("IN_FLIGHT", 1, 1000),
        page_rate=number("PAGE_RATE", 0, 100_000),
        page_burst=number("PAGE_BURST", 1, 100_000),
        token_rate=number("TOKEN_RATE", 0, 100_000),
        token_burst=number("TOKEN_BURST", 1, 100_000),
        sent_ttl_seconds=number("SENT_TTL_SECONDS", 1, 366 * 86400),
        failed_ttl_seconds=number("FAILED_TTL_SECONDS", 1, 3660 * 86400),
        campaign_ttl_seconds=number("CAMPAIGN_TTL_SECONDS", 1, 3660 * 86400),
        flower_basic_auth=env.str("FLOWER_BASIC_AUTH", "", validate=check_user_and_password)
        or None,
        flower_successes=env.bool(
            "FLOWER_SUCCESSES", False, error_messages={"invalid": "must be true or false"}
        ),
        error_code_classes={
            code: OutcomeClass(name)
            for code, name in _pairs(env.str("ERROR_CODE_CLASSES", "", validate=_are_classes))
        },
        proxy_url=env.str("PROXY_URL", "", validate=check_proxy_url) or None,
        metrics_host=env.str("METRICS_HOST", default.metrics_host, validate=check_host),
        metrics_port=number("METRICS_PORT", 0, 65535),
        log_format=env.str("LOG_FORMAT", default.log_format, validate=check_log_format),
        language=cast("Language", env.str("LANGUAGE", default.language, validate=check_language)),
    )


def _pairs(text: str) -> list[tuple[str, str]]:
    """Parse `key=value,key=value`. A part without `=` has an empty value."""
    parts = [part.partition("=") for part in text.split(",") if part.strip()]
    return [(key.strip(), value.strip()) for key, _, value in parts]


def _are_classes(text: str) -> None:
    known = {c.value for c in OutcomeClass if c is not OutcomeClass.ACCEPTED}
    if not all(code and name in known for code, name in _pairs(text)):
        raise ValidationError(
            f"must be code=class pairs such as 551=transient,10/999=permanent; "
            f"classes are {', '.join(sorted(known))}"
        )


def _without_value(error: EnvError) -> str:
    """Return an error's text without the value, which environs quotes for some types."""
    messages = getattr(error, "error_messages", None)
    text = str(error)
    if isinstance(messages, (list, tuple)) and '"' in text:
        return f"{text.split(chr(34))[1]} {' '.join(str(m) for m in messages)}"
    return text
