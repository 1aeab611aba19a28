"""The URL of a Redis server: parsing, and errors for invalid parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from harasocial_dispatch.schemas import parse_redis_url
from hypothesis import given
from hypothesis import strategies as st

VERIFIED = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", {"host": "localhost", "port": 6379, "database": 0, "tls": {}}),
        ("redis://h:1/3", {"host": "h", "port": 1, "database": 3}),
        ("redis://h/?db=6", {"database": 6}),
        ("redis://[::1]:7/2", {"host": "::1", "port": 7, "address": "[::1]:7/2"}),
        ("redis://:p%2Fw@h", {"username": None, "password": "p/w"}),
        ("redis://u:p%40w@h", {"username": "u", "password": "p@w"}),
        ("redis://h?socket_timeout=3", {"connection": {"socket_timeout": 3.0}}),
        (
            "redis://h?socket_keepalive=True&health_check_interval=9&client_name=shop",
            {
                "connection": {
                    "socket_keepalive": True,
                    "health_check_interval": 9,
                    "client_name": "shop",
                }
            },
        ),
        ("rediss://h", {"tls": VERIFIED, "public_url": "rediss://h:6379/0"}),
        (
            "rediss://h?ssl_cert_reqs=none",
            {"tls": {"ssl_cert_reqs": "none", "ssl_check_hostname": False}},
        ),
        (
            "rediss://h?ssl_check_hostname=false",
            {"tls": {"ssl_cert_reqs": "required", "ssl_check_hostname": False}},
        ),
        ("rediss://h?ssl_ca_path=/", {"tls": {**VERIFIED, "ssl_ca_path": "/"}}),
        (
            "unix://u:p@/run/redis.sock?db=2",
            {
                "path": "/run/redis.sock",
                "username": "u",
                "password": "p",
                "database": 2,
                "address": "/run/redis.sock",
                "public_url": "unix:///run/redis.sock?db=2",
            },
        ),
    ],
)
def test_a_url_is_parsed(url: str, expected: dict[str, Any]) -> None:
    found = parse_redis_url(url)
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("redis://h?virtual_host=3", "the option virtual_host; options are db, "),
        ("redis://h?socket_timout=3", "the option socket_timout; did you mean socket_timeout?"),
        ("redis://h?password=x", "the option password: write user:password@ before the host"),
        ("redis://h?ssl_cert_reqs=none", "the option ssl_cert_reqs with redis://"),
        ("unix:///s?ssl_ca_certs=/x", "the option ssl_ca_certs with unix://"),
        ("unix:///s?socket_keepalive=true", "the option socket_keepalive"),
        ("redis://h?S3cret-", "an unknown option"),
        ("redis://h?socket_timeout=soon", "from 1.5 to 300 for its option socket_timeout"),
        ("redis://h?socket_timeout=nan", "from 1.5 to 300 for its option socket_timeout"),
        ("redis://h?socket_timeout=0", "from 1.5 to 300 for its option socket_timeout"),
        ("redis://h?health_check_interval=0", "whole number from 1 to 3600"),
        ("redis://h?db=-1", "whole number from 0 to"),
        ("redis://h?db=", "whole number from 0 to"),
        ("redis://h?socket_keepalive=maybe", "true or false for its option socket_keepalive"),
        ("redis://h?client_name=a%20b", "printable ASCII without spaces"),
        ("redis://h?db=1&db=2", "the option db only once"),
        ("redis://h/1?db=2", "name the database only once"),
        ("rediss://h?ssl_cert_reqs=maybe", "required or optional or none"),
        ("rediss://h?ssl_ca_certs=/missing/ca.pem", "a file for its option ssl_ca_certs"),
        ("rediss://h?ssl_ca_certs=/", "a file for its option ssl_ca_certs"),
        (f"rediss://h?ssl_ca_path={__file__}", "a directory for its option ssl_ca_path"),
        (f"rediss://h?ssl_keyfile={__file__}", "ssl_certfile if it has ssl_keyfile"),
        ("unix://host/run/redis.sock", "must be a URL such as"),
        ("unix://", "must be a URL such as"),
        ("redis://a;b/0", "must be a URL such as"),
        ("redis://h/1/2", "must be a URL such as"),
    ],
)
def test_an_invalid_url_is_explained(url: str, error: str) -> None:
    with pytest.raises(ValueError, match=r"^must ") as refusal:
        parse_redis_url(url)
    assert error in str(refusal.value)
    assert "S3cret" not in str(refusal.value)


@given(
    st.sampled_from(["redis", "rediss"]),
    st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()),
    st.integers(0, 15),
)
def test_the_login_is_not_shown(scheme: str, password: str, database: int) -> None:
    """It is neither in the repr nor in the URLs for messages and for Celery."""
    secret = f"Q7-{password}-7Q"
    found = parse_redis_url(f"{scheme}://u:{quote(secret, safe='')}@h/{database}")

    assert found.password == secret
    shown = f"{found!r} {found.address} {found.public_url} {found.celery_url()}"
    assert secret not in shown
    assert quote(secret, safe="") not in shown
    assert parse_redis_url(found.celery_url(with_login=True)) == found


def test_a_relative_file_is_resolved_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ca.pem").touch()
    assert parse_redis_url("rediss://h?ssl_ca_certs=ca.pem").tls["ssl_ca_certs"] == "ca.pem"
