"""The gate over HTTP: hosts, other sites, logins and bodies, for our pages and Flower's."""

from __future__ import annotations

import base64
import http.client
import os
import re
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import requests
from flower.urls import handlers
from harasocial_dispatch.flower.gate import WRONG_LOGINS
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.schemas import Settings
from support.flower_harness import LOGIN, PASSWORD, USER, Flower, FlowerHarness, StartFlower
from support.harness import environment, eventually, present, unique_settings
from tornado.routing import URLSpec

#: Paths of our pages. Flower's paths come from its list of handlers.
OURS = [
    *("/failures", "/failures/", "/failures/waiting", "/failures/replays", "/failures/replays/0a"),
    *("/failures/export.csv", "/failures/static/failures.css", "/failures/x", "/metrics"),
]
FLOWERS = [
    re.sub(r"\(\.[+*]\)|\.\*", "x", each.regex.pattern if isinstance(each, URLSpec) else each[0])
    .removesuffix("$")
    .removesuffix("/?")
    for each in handlers
]
EVERY_PATH = sorted({*OURS, *(f"/{path.lstrip('/')}" for path in FLOWERS)})
#: Headers of requests by a page of another site, or of another port of this host.
FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "https://evil.example"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "null"},
]
CHANGES = ["/failures/replays", "/api/task/revoke/x", "/api/worker/shutdown/x", "/tasks/datatable"]


@pytest.fixture(scope="module")
def settings(valkey: EmbeddedValkey) -> Settings:
    """Return one namespace for this module. Its tests do not change Redis."""
    return unique_settings(valkey.url)


@pytest.fixture(scope="module")
def open_flower(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flower]:
    """Start Flower without a login, with an open API and its own controls."""
    env = environment(settings, "http://127.0.0.1:9", FLOWER_BASIC_AUTH=None)
    env["FLOWER_UNAUTHENTICATED_API"] = "true"
    flower = Flower(env, tmp_path_factory.mktemp("open"), "--read-only=false").start()
    yield flower
    flower.kill()


@pytest.fixture(scope="module")
def proxied_flower(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flower]:
    """Start Flower with a login, and with client addresses from a proxy."""
    env = environment(settings, "http://127.0.0.1:9", FLOWER_BASIC_AUTH=":".join(LOGIN))
    flower = Flower(env, tmp_path_factory.mktemp("proxied"), "--xheaders").start()
    yield flower
    flower.kill()


def test_no_other_origin_may_read_anything(open_flower: Flower) -> None:
    """Flower's variable for its API would otherwise allow it on all pages, including ours."""
    for path in EVERY_PATH:
        for method in ("GET", "OPTIONS", "POST"):
            answer = requests.request(
                method,
                open_flower.url + path,
                headers={"Origin": "https://evil.example"},
                timeout=30,
                allow_redirects=False,
            )
            allowed = [name for name in answer.headers if name.lower().startswith("access-control")]
            assert allowed == [], (method, path)
            assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("host", ["rebound.example", "127.0.0.1.nip.io", "[::1", "10.0.0.1:5555"])
def test_without_a_login_no_page_answers_under_another_hosts_name(
    open_flower: Flower, host: str
) -> None:
    """The check prevents DNS rebinding, with which a browser treats both as the same origin."""
    for path in EVERY_PATH:
        for method in ("GET", "POST"):
            answer = requests.request(
                method, open_flower.url + path, headers={"Host": host}, timeout=30
            )
            assert answer.status_code == 403, (method, path)
            assert "HARASOCIAL_FLOWER_BASIC_AUTH" in answer.text


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_no_other_site_can_change_anything(
    open_flower: Flower, harness: FlowerHarness, headers: dict[str, str]
) -> None:
    """Cross-site changes are rejected with and without a login, on all pages."""
    for path in CHANGES:
        for url, auth in ((open_flower.url, None), (harness.flower.url, LOGIN)):
            answer = requests.post(url + path, headers=headers, auth=auth, timeout=30)
            assert (answer.status_code, "another site" in answer.text) == (403, True), path
        # A link from another site still opens the pages.
        assert requests.get(open_flower.url + "/failures", headers=headers, timeout=30).ok


def test_its_own_pages_can_make_changes(open_flower: Flower) -> None:
    """A program, which sends none of these headers, can do this too."""
    url = f"{open_flower.url}/api/task/revoke/x"
    for headers in ({}, {"Sec-Fetch-Site": "same-origin"}, {"Origin": open_flower.url}):
        assert requests.post(url, headers=headers, timeout=30).status_code == 200


def basic(text: bytes) -> str:
    return "Basic " + base64.b64encode(text).decode()


WRONG_HEADERS = [
    basic(f"ông:{PASSWORD}".encode()),
    basic(f"ông:{PASSWORD}".encode("latin-1")),
    basic(f"{USER}:{PASSWORD}\xff".encode("latin-1")),
    basic(b"\xff\xfe\x00"),
    "Basic ñ",
    "Basic a",
    "Basic",
    "Basic a b",
    f"Bearer {PASSWORD}",
    basic(f"{USER}:{PASSWORD}".encode()).replace("Basic", "Digest"),
]


@pytest.mark.parametrize("header", WRONG_HEADERS)
def test_a_malformed_login_is_a_wrong_login(proxied_flower: Flower, header: str) -> None:
    """A malformed login is rejected like a wrong one, without an error."""
    # Each attempt has its own address, because wrong logins are limited by address.
    address = f"192.0.2.{100 + WRONG_HEADERS.index(header)}"
    headers: dict[str, str | bytes] = {
        "Authorization": header.encode("latin-1"),
        "X-Real-Ip": address,
    }
    for path in ("/failures", "/workers", "/api/tasks", "/metrics", "/unknown"):
        answer = requests.get(proxied_flower.url + path, headers=headers, timeout=30)
        assert (answer.status_code, answer.text) == (401, "Access denied")
    assert "Traceback" not in proxied_flower.log()


def sent(harness: FlowerHarness, path: str, headers: dict[str, str], body: bytes) -> int:
    """Announce a body, send only its beginning, and return the status of the response."""
    with socket.create_connection(("127.0.0.1", harness.flower.port), timeout=60) as connection:
        lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1"]
        lines += [f"{name}: {text}" for name, text in headers.items()]
        # The response may come, and the connection end, before the whole body is sent.
        with suppress(ConnectionError):
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        return int(connection.makefile("rb").readline().split()[1])


@pytest.mark.parametrize("path", ["/failures/replays", "/tasks/datatable", "/api/task/revoke/x"])
def test_a_large_body_is_not_read(harness: FlowerHarness, path: str) -> None:
    """Without the login, no body is read: the response is sent before the body arrives."""
    login = {"Authorization": basic(f"{USER}:{PASSWORD}".encode())}
    large = {"Content-Length": "95000000"}
    chunked = {"Transfer-Encoding": "chunked"}
    chunk = b"%x\r\n%b\r\n" % (600_000, b"x" * 600_000)
    assert sent(harness, path, large, b"x" * 1000) in (400, 401)
    assert sent(harness, path, {"Content-Length": "900000"}, b"x" * 1000) == 401
    assert sent(harness, path, chunked, chunk[:1000]) == 401
    assert sent(harness, path, large | login, b"x" * 1000) == 400
    assert sent(harness, path, chunked | login, chunk * 2) == 400


@pytest.mark.parametrize(("login", "mode"), [(None, 0o600), (f"{USER}:{PASSWORD}", 0o660)])
def test_a_unix_socket_is_not_open_to_everyone(
    start_flower: StartFlower, tmp_path: Path, login: str | None, mode: int
) -> None:
    """Without a login, only Flower's user has access. With a login, its group has too."""
    path = tmp_path / "flower.sock"
    # Even with an umask of 0, the socket is never open to other users.
    before = os.umask(0)
    try:
        flower = start_flower(f"--unix-socket={path}", FLOWER_BASIC_AUTH=login, wait=False)
    finally:
        os.umask(before)
    eventually(path.exists, what="the socket")
    assert stat.S_IMODE(path.stat().st_mode) == mode
    eventually(lambda: answers(path), what="an answer over the socket")
    assert flower.process.poll() is None


def answers(path: Path) -> bool:
    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect(str(path))
        connection.request("GET", "/healthcheck")
        return connection.getresponse().status == 200
    except ConnectionError:
        return False
    finally:
        connection.close()


@pytest.fixture
def start_limited(
    start_flower: StartFlower, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> StartFlower:
    """Start Flower without more attempts to log in during a test, also on a busy machine."""
    (tmp_path / "sitecustomize.py").write_text(
        "from harasocial_dispatch.flower import gate\ngate._REFILL_SECONDS = 50.0\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return partial(start_flower, new_interpreter=True)


def test_guessing_is_slow(start_limited: StartFlower) -> None:
    """The limit is per address. A browser that has logged in before is not affected."""
    flower = start_limited("--xheaders")
    url = f"{flower.url}/failures"
    known = requests.get(url, auth=LOGIN, timeout=30).cookies
    wrong = [
        requests.get(url, auth=(USER, f"wrong {number}"), timeout=30)
        for number in range(WRONG_LOGINS + 5)
    ]
    statuses = [answer.status_code for answer in wrong]
    assert statuses[:WRONG_LOGINS] == [401] * WRONG_LOGINS
    assert set(statuses[WRONG_LOGINS:]) <= {401, 429}
    assert 429 in statuses
    refused = wrong[statuses.index(429)]
    # Longer than the usual three seconds: the limit of this test is in force.
    assert 3 < int(refused.headers["Retry-After"]) <= 60
    # A different response would reveal that this guess is correct.
    assert requests.get(url, auth=LOGIN, timeout=30).status_code == 429
    assert requests.get(url, auth=LOGIN, cookies=known, timeout=30).status_code == 200
    elsewhere = {"X-Real-Ip": "192.0.2.1"}
    assert requests.get(url, auth=LOGIN, headers=elsewhere, timeout=30).status_code == 200
    assert requests.get(f"{flower.url}/healthcheck", timeout=30).status_code == 200
    assert requests.get(url, timeout=30).status_code == 401
    assert flower.log().count("wrong logins") == 1


def test_a_forged_cookie_has_no_effect(start_limited: StartFlower) -> None:
    """Only this Flower can sign the cookie of a logged-in browser."""
    flower = start_limited()
    url = f"{flower.url}/failures"
    (cookie,) = [cookie for cookie in flower.get("/failures").cookies if cookie.name != "_xsrf"]
    assert cookie.has_nonstandard_attr("HttpOnly")
    value = present(cookie.value)
    assert PASSWORD not in value
    changed = {cookie.name: value[:-4] + "0000"}
    for number in range(WRONG_LOGINS + 5):
        requests.get(url, auth=(USER, f"wrong {number}"), cookies=changed, timeout=30)
    assert requests.get(url, auth=LOGIN, cookies=changed, timeout=30).status_code == 429
    # A valid cookie has its own attempts, and no more than an address.
    true = {cookie.name: value}
    for number in range(WRONG_LOGINS + 5):
        requests.get(url, auth=(USER, f"wrong {number}"), cookies=true, timeout=30)
    assert requests.get(url, auth=LOGIN, cookies=true, timeout=30).status_code == 429
