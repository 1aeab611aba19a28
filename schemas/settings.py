"""Settings, from the environment or a `.env` file, prefix `HARASOCIAL_`.

The defaults are the documentation: `_read` names every variable, its default and its bounds.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from environs import Env, EnvError, validate
from marshmallow import ValidationError

from .errors import SettingsError
from .states import OutcomeClass

PREFIX = "HARASOCIAL_"
API_URL = "https://apis.harasocial.com/social/messages.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that can be set, with its unit in the name. Secrets are not in its repr."""

    #: The bearer token for every page that `tokens_file` does not name.
    token: str | None = field(default=None, repr=False)
    #: JSON object, page_id → token; read again when it changes.
    tokens_file: Path | None = None
    api_url: str = API_URL
    redis_url: str = field(default="redis://127.0.0.1:6379/0", repr=False)
    #: Set before every key in Redis; two namespaces never see each other.
    namespace: str = "harasocial"
    #: A job's deadline where none is given, from its enqueueing or `send_at`: Messenger's window.
    expires_seconds: float = 24.0 * 3600
    max_attempts: int = 12
    retry_base_seconds: float = 2.0
    retry_max_seconds: float = 900.0
    connect_timeout_seconds: float = 5.0
    #: Between two pieces of a reply.
    read_timeout_seconds: float = 15.0
    #: For a whole call, however the server drips.
    call_deadline_seconds: float = 20.0
    #: How long a claim holds; a killed worker's jobs are taken up again after this.
    lease_seconds: float = 60.0
    #: Calls at once, per process.
    in_flight: int = 32
    #: Messages a second for one page, over all workers; 0 is no limit.
    page_rate: float = 0.0
    #: Messages that a page may send at once before `page_rate` holds.
    page_burst: int = 1
    sent_ttl_seconds: float = 24.0 * 3600
    failed_ttl_seconds: float = 30.0 * 24 * 3600
    #: `user:password` of Flower.
    flower_basic_auth: str | None = field(default=None, repr=False)
    #: error_code → class, added to (and before) the built-in list.
    error_code_classes: dict[str, OutcomeClass] = field(default_factory=dict)
    #: A proxy for the calls, such as http://proxy:3128. The environment's proxies are not used.
    proxy_url: str | None = field(default=None, repr=False)

    @property
    def safe_call_deadline_seconds(self) -> float:
        """The call's deadline, cut so that no call outlasts the lease that guards it."""
        return min(self.call_deadline_seconds, 0.8 * self.lease_seconds)

    @classmethod
    def from_environment(cls, env_file: Path | None = Path(".env")) -> Settings:
        """Read the environment, and `env_file` for what the environment does not set.

        Raises:
            SettingsError: naming the variable and what was expected.
        """
        env = Env(prefix=PREFIX)
        try:
            if env_file is not None and env_file.is_file():
                env.read_env(env_file, recurse=False)
            return _read(env)
        except EnvError as error:
            raise SettingsError(_without_value(error)) from None
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{env_file} cannot be read: {error}") from None


def _read(env: Env) -> Settings:
    default = Settings()

    def number(name: str, lowest: float, highest: float) -> Any:
        bounds = validate.Range(
            lowest, highest, error=f"must be a number from {lowest:g} to {highest:g}"
        )
        read: Callable[..., Any] = (
            env.int if isinstance(getattr(default, name.lower()), int) else env.float
        )
        return read(name, getattr(default, name.lower()), validate=bounds)

    tokens_file = env.str("TOKENS_FILE", "")
    return Settings(
        token=env.str("TOKEN", "", validate=_is_token) or None,
        tokens_file=Path(tokens_file) if tokens_file else None,
        api_url=env.str("API_URL", API_URL, validate=_is_safe_url),
        redis_url=env.str("REDIS_URL", default.redis_url, validate=_is_redis_url),
        namespace=env.str("NAMESPACE", default.namespace, validate=_is_namespace),
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
        sent_ttl_seconds=number("SENT_TTL_SECONDS", 1, 366 * 86400),
        failed_ttl_seconds=number("FAILED_TTL_SECONDS", 1, 3660 * 86400),
        flower_basic_auth=env.str("FLOWER_BASIC_AUTH", "") or None,
        error_code_classes=_error_code_classes(env),
        proxy_url=env.str("PROXY_URL", "", validate=_is_proxy_url) or None,
    )


def _error_code_classes(env: Env) -> dict[str, OutcomeClass]:
    pairs: dict[str, str] = env.dict("ERROR_CODE_CLASSES", {}, validate=_are_classes)
    return {code: OutcomeClass(name) for code, name in pairs.items()}


def _are_classes(pairs: dict[str, str]) -> None:
    known = {c.value for c in OutcomeClass if c is not OutcomeClass.ACCEPTED}
    if not set(pairs.values()) <= known:
        raise ValidationError(
            f"must be code=class pairs such as 551=transient,10/999=permanent; "
            f"classes are {', '.join(sorted(known))}"
        )


def _is_token(token: str) -> None:
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ValidationError("must be the bearer token alone: printable ASCII without blanks")


def _is_safe_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or parts.username or not url.isprintable():
        raise ValidationError(f"must be a URL such as {API_URL}")
    if parts.scheme == "http" and not _is_loopback(host):
        raise ValidationError("must begin with https://, or the token travels in the open")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_redis_url(url: str) -> None:
    if urlsplit(url).scheme not in ("redis", "rediss", "unix"):
        raise ValidationError(
            "must begin with redis://, rediss:// or unix://, such as redis://127.0.0.1:6379/0"
        )


def _is_namespace(name: str) -> None:
    if not name or not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
        raise ValidationError("must be letters, digits, - and _ only")


def _is_proxy_url(url: str) -> None:
    if url and urlsplit(url).scheme not in ("http", "https"):
        raise ValidationError("must begin with http:// or https://")


def _without_value(error: EnvError) -> str:
    """Environs quotes the value for some types; say only which variable and what is wrong."""
    messages = getattr(error, "error_messages", None)
    text = str(error)
    if isinstance(messages, (list, tuple)) and '"' in text:
        return f"{text.split(chr(34))[1]} {' '.join(str(m) for m in messages)}"
    return text
