"""Parse the URL of a Redis server, for the ledger and for Celery's broker."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

_PORT = 6379
_EXAMPLE = "redis://:password@127.0.0.1:6379/0"
#: The TLS options whose values are file names, and the one whose value is a directory.
_FILES, _DIRECTORY = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"), "ssl_ca_path"


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """Address, login and connection options. Only `username` and `password` are secret.

    Attributes:
        host: a name or an address; empty for a Unix socket.
        path: the file of the Unix socket; empty for TCP.
        connection: redis-py's connection options, such as `socket_timeout` (seconds).
        tls: redis-py's TLS options, such as `ssl_ca_certs`; empty without TLS.
    """

    host: str
    port: int
    path: str
    database: int
    username: str | None = field(repr=False)
    password: str | None = field(repr=False)
    connection: dict[str, Any]
    tls: dict[str, Any]

    @property
    def address(self) -> str:
        """The address for messages: `host:port/database`, or the file of the socket."""
        return self.path or f"{self._host_and_port}/{self.database}"

    @property
    def public_url(self) -> str:
        """The URL without the login and the options."""
        return self._url("unix", "")

    def celery_url(self, *, with_login: bool = False) -> str:
        """Return the URL in kombu's format, without options. By default it contains no secret."""
        login = ""
        if with_login and (self.username or self.password):
            user, password = (quote(text or "", safe="") for text in (self.username, self.password))
            login = f"{user}:{password}@"
        return self._url("redis+socket", login)

    @property
    def _host_and_port(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def _url(self, socket_scheme: str, login: str) -> str:
        if self.path:
            option = "db" if socket_scheme == "unix" else "virtual_host"
            return f"{socket_scheme}://{login}{quote(self.path)}?{option}={self.database}"
        scheme = "rediss" if self.tls else "redis"
        return f"{scheme}://{login}{self._host_and_port}/{self.database}"


def parse_redis_url(url: str) -> RedisUrl:
    """Parse a URL that begins with `redis://`, `rediss://` (TLS) or `unix://`.

    Raises:
        ValueError: with what was expected, and without any part of the login.
    """
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError(
            "must begin with redis://, rediss:// or unix://, such as redis://127.0.0.1:6379/0"
        )
    try:
        parts = urlsplit(url)
        # urlsplit parses the port only here. It is not a number if the password contains a `/`.
        host, port = unquote(parts.hostname or ""), parts.port or _PORT
    except ValueError:
        raise _malformed() from None
    is_socket = parts.scheme == "unix"
    path = unquote(parts.path)
    if (
        not url.isprintable()
        or " " in url
        or parts.fragment
        or "@" in parts.query
        or not re.fullmatch(r"[\w.:%-]*", host, re.ASCII)
        or (is_socket and (host or not path.startswith("/") or not path.isprintable()))
    ):
        raise _malformed()
    options = _options(parts.scheme, parts.query)
    database = options.pop("db", None)
    if not is_socket and path.strip("/"):
        # The database number follows the host. Nothing follows the name of a socket.
        if not re.fullmatch(r"/?[0-9]{1,9}/?", path):
            raise _malformed()
        if database is not None:
            raise ValueError("must name the database only once, either after the host or as ?db=")
        database = int(path.strip("/"))
    return RedisUrl(
        host="" if is_socket else host or "localhost",
        port=port,
        path=path if is_socket else "",
        database=database or 0,
        username=unquote(parts.username or "") or None,
        password=unquote(parts.password or "") or None,
        connection={name: value for name, value in options.items() if not _is_tls(name)},
        tls=_tls(options) if parts.scheme == "rediss" else {},
    )


def _malformed() -> ValueError:
    return ValueError(
        f"must be a URL such as {_EXAMPLE}; "
        "write / as %2F, # as %23, ? as %3F and [ as %5B in a password"
    )


def _is_tls(name: str) -> bool:
    return name.startswith("ssl_")


def _applies(name: str, scheme: str) -> bool:
    if name == "socket_keepalive":
        return scheme != "unix"
    return scheme == "rediss" or not _is_tls(name)


def _tls(options: dict[str, Any]) -> dict[str, Any]:
    """Return the TLS options. The defaults verify the certificate and its host name."""
    given = {name: value for name, value in options.items() if _is_tls(name)}
    if "ssl_keyfile" in given and "ssl_certfile" not in given:
        raise ValueError("must have the option ssl_certfile if it has ssl_keyfile")
    verified = given.get("ssl_cert_reqs", "required") != "none"
    return {"ssl_cert_reqs": "required", "ssl_check_hostname": verified, **given}


def _options(scheme: str, query: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    known = {name: read for name, read in _READERS.items() if _applies(name, scheme)}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise ValueError(_unknown(name, scheme, known))
        if name in options:
            raise ValueError(f"must have the option {name} only once")
        options[name] = known[name](name, text)
    return options


def _unknown(name: str, scheme: str, known: dict[str, Any]) -> str:
    # Other text may be a part of a password with an unescaped `?`, so it is not quoted.
    named = f"the option {name}" if re.fullmatch(r"[a-z_]{1,40}", name) else "an unknown option"
    if name in ("username", "password"):
        return f"must not have {named}: write user:password@ before the host"
    if _is_tls(name) and name in _READERS:
        return f"must not have {named} with {scheme}://: TLS needs rediss://"
    meant = get_close_matches(name, known, n=1)
    hint = f"; did you mean {meant[0]}?" if meant else f"; options are {', '.join(known)}"
    return f"must not have {named}{hint}"


def _number(lowest: float, highest: float) -> Callable[[str, str], float]:
    def read(name: str, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not lowest <= value <= highest:
            raise ValueError(
                f"must have a number from {lowest:g} to {highest:g} for its option {name}"
            )
        return value

    return read


def _whole_number(lowest: int, highest: int) -> Callable[[str, str], int]:
    def read(name: str, text: str) -> int:
        # Check the number of digits first: Python raises another error for very long numbers.
        if not re.fullmatch(rf"[0-9]{{1,{len(str(highest))}}}", text) or not (
            lowest <= int(text) <= highest
        ):
            raise ValueError(
                f"must have a whole number from {lowest} to {highest} for its option {name}"
            )
        return int(text)

    return read


def _choice(**values: Any) -> Callable[[str, str], Any]:
    def read(name: str, text: str) -> Any:
        if text.lower() not in values:
            raise ValueError(f"must have {' or '.join(values)} for its option {name}")
        return values[text.lower()]

    return read


def _existing(name: str, text: str) -> str:
    is_directory = name == _DIRECTORY
    kind = "directory" if is_directory else "file"
    try:
        file = Path(text)
        exists = file.is_dir() if is_directory else file.is_file()
    except (OSError, ValueError):
        exists = False
    if not exists:
        raise ValueError(f"must have the name of a {kind} for its option {name}")
    return text


def _client_name(name: str, text: str) -> str:
    if not re.fullmatch(r"[!-~]{1,100}", text):
        raise ValueError(f"must have printable ASCII without spaces for its option {name}")
    return text


_boolean = _choice(true=True, false=False)

#: Option → parser of its value. All have the same meaning for the ledger and for Celery.
_READERS: dict[str, Callable[[str, str], Any]] = {
    "db": _whole_number(0, 999_999_999),
    "socket_connect_timeout": _number(0.1, 300),
    # A single call of Celery waits up to one second for a message, so the timeout must be longer.
    "socket_timeout": _number(1.5, 300),
    "socket_keepalive": _boolean,
    "health_check_interval": _whole_number(1, 3600),
    "client_name": _client_name,
    "ssl_cert_reqs": _choice(required="required", optional="optional", none="none"),
    "ssl_check_hostname": _boolean,
    **dict.fromkeys((*_FILES, _DIRECTORY), _existing),
}
