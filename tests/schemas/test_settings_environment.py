"""Settings from the environment and from `.env`. Errors name a setting and never quote it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from harasocial_dispatch.schemas import OutcomeClass, Settings, SettingsError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

API_URL = "https://apis.harasocial.com/social/messages.json"
SECRET = "s3cr3t-v4lue"


def read(environment: dict[str, str], env_file: Path | None = None) -> Settings:
    """Return the settings of `environment`, whose names have no prefix."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(f"HARASOCIAL_{name}", value)
        return Settings.from_environment(env_file)


def error_of(environment: dict[str, str], env_file: Path | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        read(environment, env_file)
    return str(caught.value)


def test_the_defaults_are_as_documented() -> None:
    """24 hours is Messenger's window; no page sends more than 40 messages in a second."""
    assert read({}) == Settings(
        token=None,
        tokens_file=None,
        api_url=API_URL,
        redis_url="redis://127.0.0.1:6379/0",
        namespace="harasocial",
        expires_seconds=86_400,
        max_attempts=12,
        retry_base_seconds=2,
        retry_max_seconds=900,
        connect_timeout_seconds=5,
        read_timeout_seconds=15,
        call_deadline_seconds=20,
        lease_seconds=60,
        in_flight=256,
        page_rate=30,
        page_burst=10,
        token_rate=0,
        token_burst=80,
        sent_ttl_seconds=86_400,
        failed_ttl_seconds=30 * 86_400,
        flower_basic_auth=None,
        error_code_classes={},
        proxy_url=None,
        metrics_host="127.0.0.1",
        metrics_port=0,
        log_format="text",
    )
    assert read({}) == Settings()


#: Variable → a valid value, and the parsed value.
GOOD = {
    "TOKEN": ("EAAB.c-d_e~f+g/h==", "EAAB.c-d_e~f+g/h=="),
    "TOKENS_FILE": ("/run/secrets/tokens.json", Path("/run/secrets/tokens.json")),
    "API_URL": ("http://127.0.0.1:8080/x", "http://127.0.0.1:8080/x"),
    "REDIS_URL": ("rediss://u:p%2Fw@redis:6380/3", "rediss://u:p%2Fw@redis:6380/3"),
    "NAMESPACE": ("shop-1_test", "shop-1_test"),
    "EXPIRES_SECONDS": ("3600.5", 3600.5),
    "MAX_ATTEMPTS": ("3", 3),
    "RETRY_BASE_SECONDS": ("0.1", 0.1),
    "RETRY_MAX_SECONDS": ("60", 60.0),
    "CONNECT_TIMEOUT_SECONDS": ("0.5", 0.5),
    "READ_TIMEOUT_SECONDS": ("2.5", 2.5),
    "CALL_DEADLINE_SECONDS": ("10", 10.0),
    "LEASE_SECONDS": ("30", 30.0),
    "IN_FLIGHT": ("8", 8),
    "PAGE_RATE": ("0.25", 0.25),
    "PAGE_BURST": ("80", 80),
    "TOKEN_RATE": ("4", 4.0),
    "TOKEN_BURST": ("60", 60),
    "SENT_TTL_SECONDS": ("60", 60.0),
    "FAILED_TTL_SECONDS": ("86400", 86_400.0),
    "CAMPAIGN_TTL_SECONDS": ("7200", 7200.0),
    "FLOWER_BASIC_AUTH": ("admin:pass:word", "admin:pass:word"),
    "FLOWER_SUCCESSES": ("true", True),
    "ERROR_CODE_CLASSES": (
        "551=transient, 10/999 = permanent,7=restricted,8=app_throttled",
        {
            "551": OutcomeClass.TRANSIENT,
            "10/999": OutcomeClass.PERMANENT,
            "7": OutcomeClass.RESTRICTED,
            "8": OutcomeClass.APP_THROTTLED,
        },
    ),
    "PROXY_URL": ("http://user:pw@proxy:3128", "http://user:pw@proxy:3128"),
    "METRICS_HOST": ("::", "::"),
    "METRICS_PORT": ("9108", 9108),
    "LOG_FORMAT": ("json", "json"),
    "LANGUAGE": ("vi", "vi"),
}


def test_every_setting_is_read_from_its_variable() -> None:
    """Every field has a variable."""
    assert {field.name.upper() for field in fields(Settings)} == set(GOOD)
    found = read({name: text for name, (text, _) in GOOD.items()})
    assert {name: getattr(found, name.lower()) for name in GOOD} == {
        name: value for name, (_, value) in GOOD.items()
    }


@pytest.mark.parametrize("name", ["TOKEN", "TOKENS_FILE", "FLOWER_BASIC_AUTH", "PROXY_URL"])
def test_an_empty_value_means_not_set(name: str) -> None:
    """Compose files use `NAME=${NAME:-}` for variables that are not set."""
    assert getattr(read({name: ""}), name.lower()) is None


NUMBERS = {
    "EXPIRES_SECONDS": ("number", "1", "31622400"),
    "MAX_ATTEMPTS": ("whole number", "1", "100"),
    "RETRY_BASE_SECONDS": ("number", "0.01", "3600"),
    "RETRY_MAX_SECONDS": ("number", "0.01", "86400"),
    "CONNECT_TIMEOUT_SECONDS": ("number", "0.05", "300"),
    "READ_TIMEOUT_SECONDS": ("number", "0.05", "300"),
    "CALL_DEADLINE_SECONDS": ("number", "0.1", "600"),
    "LEASE_SECONDS": ("number", "0.2", "3600"),
    "IN_FLIGHT": ("whole number", "1", "1000"),
    "PAGE_RATE": ("number", "0", "100000"),
    "PAGE_BURST": ("whole number", "1", "100000"),
    "TOKEN_RATE": ("number", "0", "100000"),
    "TOKEN_BURST": ("whole number", "1", "100000"),
    "SENT_TTL_SECONDS": ("number", "1", "31622400"),
    "FAILED_TTL_SECONDS": ("number", "1", "316224000"),
    "CAMPAIGN_TTL_SECONDS": ("number", "1", "316224000"),
    "METRICS_PORT": ("whole number", "0", "65535"),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_must_be_within_its_bounds(name: str) -> None:
    """Both bounds are valid. The error for any other value has the expected range."""
    kind, lowest, highest = NUMBERS[name]
    expected = f"HARASOCIAL_{name} must be a {kind} from {lowest} to {highest}"
    for text in (lowest, highest):
        assert getattr(read({name: text}), name.lower()) == float(text)
    beyond = [str(float(lowest) - 0.001), str(float(highest) + 1), "-1", "1e400"]
    no_numbers = ["", " ", "ten", "1,5", "1.2.3", "nan", "inf", "0x1f", "9" * 5000, "\x1b[2J", '"']
    whole = ["1.5", "2.0"] if kind == "whole number" else []
    for text in beyond + no_numbers + whole:
        assert error_of({name: text}) == expected, text[:20]


TOKEN_ERROR = "HARASOCIAL_TOKEN must be only the bearer token: printable ASCII without spaces"
URL_ERROR = f"HARASOCIAL_API_URL must be a URL such as {API_URL}"
OPEN_ERROR = "HARASOCIAL_API_URL must begin with https://, so that the token is encrypted"
REDIS_SCHEME_ERROR = (
    "HARASOCIAL_REDIS_URL must begin with redis://, rediss:// or unix://, "
    "such as redis://127.0.0.1:6379/0"
)
REDIS_ERROR = (
    "HARASOCIAL_REDIS_URL must be a URL such as redis://:password@127.0.0.1:6379/0; "
    "write / as %2F, # as %23, ? as %3F and [ as %5B in a password"
)
NAMESPACE_ERROR = "HARASOCIAL_NAMESPACE must be letters, digits, - and _ only"
CLASSES_ERROR = (
    "HARASOCIAL_ERROR_CODE_CLASSES must be code=class pairs such as 551=transient,"
    "10/999=permanent; classes are ambiguous, app_throttled, auth, permanent, restricted, "
    "throttled, transient"
)
PROXY_ERROR = "HARASOCIAL_PROXY_URL must be a URL such as http://proxy:3128"
HOST_ERROR = (
    "HARASOCIAL_METRICS_HOST must be an address or name of this host, such as 127.0.0.1 or ::"
)
FORMAT_ERROR = "HARASOCIAL_LOG_FORMAT must be text or json"
LANGUAGE_ERROR = "HARASOCIAL_LANGUAGE must be en (English) or vi (Vietnamese)"
FLOWER_ERROR = "HARASOCIAL_FLOWER_BASIC_AUTH must be user:password"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("TOKEN", f"Bearer {SECRET}", TOKEN_ERROR),
        ("TOKEN", f"{SECRET}\n", TOKEN_ERROR),
        ("TOKEN", f"{SECRET}\x1b", TOKEN_ERROR),
        ("TOKEN", f"{SECRET}é", TOKEN_ERROR),
        ("TOKEN", f'"{SECRET}" ', TOKEN_ERROR),
        ("TOKEN", SECRET * 100_000 + " ", TOKEN_ERROR),
        ("API_URL", "", URL_ERROR),
        ("API_URL", "apis.harasocial.com", URL_ERROR),
        ("API_URL", "ftp://apis.harasocial.com/", URL_ERROR),
        ("API_URL", "https://", URL_ERROR),
        ("API_URL", "https:///social/messages.json", URL_ERROR),
        ("API_URL", f"https://user:{SECRET}@apis.harasocial.com/", URL_ERROR),
        ("API_URL", f"https://:{SECRET}@apis.harasocial.com/", URL_ERROR),
        ("API_URL", "https://h:99999/", URL_ERROR),
        ("API_URL", "https://h:x/", URL_ERROR),
        ("API_URL", "https://[::1/", URL_ERROR),
        ("API_URL", "https://a b/", URL_ERROR),
        ("API_URL", "https://h/\n", URL_ERROR),
        ("API_URL", "http://apis.harasocial.com/", OPEN_ERROR),
        ("API_URL", "http://10.0.0.1/", OPEN_ERROR),
        ("API_URL", "http://localhost.example.com/", OPEN_ERROR),
        ("API_URL", "http://127.0.0.1.example.com/", OPEN_ERROR),
        ("REDIS_URL", "", REDIS_SCHEME_ERROR),
        ("REDIS_URL", "127.0.0.1:6379", REDIS_SCHEME_ERROR),
        ("REDIS_URL", f"http://:{SECRET}@127.0.0.1:6379", REDIS_SCHEME_ERROR),
        ("REDIS_URL", f'amqp://:"{SECRET}"@h', REDIS_SCHEME_ERROR),
        ("REDIS_URL", f"redis:{SECRET}", REDIS_SCHEME_ERROR),
        ("REDIS_URL", f"redis://:{SECRET}/x@h:6379/0", REDIS_ERROR),
        ("REDIS_URL", f"redis://:12/{SECRET}@h:6379/0", REDIS_ERROR),
        ("REDIS_URL", f"redis://:{SECRET}#x@h:6379/0", REDIS_ERROR),
        ("REDIS_URL", f"redis://:12#{SECRET}@h:6379/0", REDIS_ERROR),
        ("REDIS_URL", f"redis://:{SECRET}?x@h:6379/0", REDIS_ERROR),
        ("REDIS_URL", f"redis://:{SECRET}[x@h:6379/0", REDIS_ERROR),
        ("REDIS_URL", f"redis://:{SECRET}@h:port/0", REDIS_ERROR),
        ("REDIS_URL", f"redis://:{SECRET}@h:66666/0", REDIS_ERROR),
        ("REDIS_URL", f"redis://:{SECRET}@h:6379/zero", REDIS_ERROR),
        ("REDIS_URL", f"redis://:{SECRET}@h:6379/٣", REDIS_ERROR),
        ("REDIS_URL", f"redis://:{SECRET} x@h:6379/0", REDIS_ERROR),
        ("REDIS_URL", f"redis://:{SECRET}@h:6379/0\n", REDIS_ERROR),
        ("NAMESPACE", "", NAMESPACE_ERROR),
        ("NAMESPACE", "--", NAMESPACE_ERROR),
        ("NAMESPACE", "a b", NAMESPACE_ERROR),
        ("NAMESPACE", "{a}", NAMESPACE_ERROR),
        ("NAMESPACE", "a:b", NAMESPACE_ERROR),
        ("NAMESPACE", "cửa-hàng", NAMESPACE_ERROR),
        ("ERROR_CODE_CLASSES", "551", CLASSES_ERROR),
        ("ERROR_CODE_CLASSES", "551=", CLASSES_ERROR),
        ("ERROR_CODE_CLASSES", "=transient", CLASSES_ERROR),
        ("ERROR_CODE_CLASSES", "551=perhaps", CLASSES_ERROR),
        ("ERROR_CODE_CLASSES", "551=accepted", CLASSES_ERROR),
        ("ERROR_CODE_CLASSES", "551=transient=auth", CLASSES_ERROR),
        ("ERROR_CODE_CLASSES", "551=transient;10=auth", CLASSES_ERROR),
        ("PROXY_URL", "proxy:3128", PROXY_ERROR),
        ("PROXY_URL", f"socks5://user:{SECRET}@proxy", PROXY_ERROR),
        ("PROXY_URL", f"http://user:{SECRET}@proxy:port", PROXY_ERROR),
        ("PROXY_URL", f"http://user:{SECRET}[@proxy:1", PROXY_ERROR),
        ("PROXY_URL", "http://", PROXY_ERROR),
        ("METRICS_HOST", "", HOST_ERROR),
        ("METRICS_HOST", f"http://{SECRET}", HOST_ERROR),
        ("METRICS_HOST", "127.0.0.1 ::1", HOST_ERROR),
        ("LOG_FORMAT", "", FORMAT_ERROR),
        ("LOG_FORMAT", SECRET, FORMAT_ERROR),
        ("METRICS_HOST", "http://0.0.0.0", HOST_ERROR),
        ("METRICS_HOST", f"user:{SECRET}@h", HOST_ERROR),
        ("METRICS_HOST", "[::]", HOST_ERROR),
        ("METRICS_HOST", "a\nb", HOST_ERROR),
        ("LOG_FORMAT", "JSON", FORMAT_ERROR),
        ("LANGUAGE", "VI", LANGUAGE_ERROR),
        ("LANGUAGE", SECRET, LANGUAGE_ERROR),
        ("FLOWER_BASIC_AUTH", SECRET, FLOWER_ERROR),
        ("FLOWER_BASIC_AUTH", f":{SECRET}", FLOWER_ERROR),
        ("FLOWER_BASIC_AUTH", f"{SECRET}:", FLOWER_ERROR),
        ("FLOWER_BASIC_AUTH", f"user:{SECRET}\x1b", FLOWER_ERROR),
    ],
)
def test_an_invalid_value_is_named_and_never_quoted(name: str, value: str, expected: str) -> None:
    """The message has the variable and the expected format. Any value may be a secret."""
    assert error_of({name: value}) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_URL", "http://localhost/"),
        ("API_URL", "http://[::1]:8080/"),
        ("API_URL", "HTTPS://apis.harasocial.com"),
        ("REDIS_URL", "redis://redis"),
        ("REDIS_URL", "redis://"),
        ("REDIS_URL", "redis://redis:6379/"),
        ("REDIS_URL", "rediss://default:p%40ss@redis.example.com:6380/0?ssl_cert_reqs=none"),
        ("REDIS_URL", "unix:///run/redis/redis.sock?db=2"),
        ("REDIS_URL", "unix://:password@/run/redis.sock"),
        ("PROXY_URL", "https://proxy"),
        ("ERROR_CODE_CLASSES", ""),
        ("ERROR_CODE_CLASSES", "551=transient,"),
    ],
)
def test_unusual_valid_values_are_accepted(name: str, value: str) -> None:
    """The validation accepts all working configurations."""
    read({name: value})


def test_secrets_are_not_in_the_repr() -> None:
    """Logs and tracebacks may contain the repr."""
    found = read(
        {
            "TOKEN": f"token-{SECRET}",
            "REDIS_URL": f"redis://:{SECRET}@h",
            "FLOWER_BASIC_AUTH": f"user:{SECRET}",
            "PROXY_URL": f"http://user:{SECRET}@proxy",
            "NAMESPACE": "shown",
        }
    )
    assert SECRET not in repr(found)
    assert SECRET not in f"{found}"
    assert "shown" in repr(found)


def test_the_env_file_provides_missing_variables(tmp_path: Path) -> None:
    """The environment takes precedence. It is not changed, so child processes inherit no secret."""
    file = tmp_path / ".env"
    file.write_text(
        "# a comment\n"
        "HARASOCIAL_TOKEN='from-the-file'\n"
        "export HARASOCIAL_NAMESPACE=file\n"
        "HARASOCIAL_MAX_ATTEMPTS=7\n"
        "HARASOCIAL_IN_FLIGHT\n"
        "TOKEN=without-the-prefix\n"
    )
    before = dict(os.environ)
    found = read({"NAMESPACE": "environment"}, file)
    assert (found.token, found.namespace, found.max_attempts, found.in_flight) == (
        "from-the-file",
        "environment",
        7,
        256,
    )
    assert dict(os.environ) == before


def test_an_empty_variable_takes_precedence_over_the_env_file(tmp_path: Path) -> None:
    """An empty variable counts as set."""
    file = tmp_path / ".env"
    file.write_text("HARASOCIAL_TOKEN=from-the-file\n")
    assert read({"TOKEN": ""}, file).token is None


def test_the_env_file_is_read_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in a parent directory may belong to another program."""
    below = tmp_path / "below"
    below.mkdir()
    (tmp_path / ".env").write_text("HARASOCIAL_NAMESPACE=here\n")
    monkeypatch.chdir(tmp_path)
    assert Settings.from_environment().namespace == "here"
    monkeypatch.chdir(below)
    assert Settings.from_environment().namespace == "harasocial"


@pytest.mark.parametrize("name", [None, "missing.env", "."])
def test_without_an_env_file_only_the_environment_is_used(tmp_path: Path, name: str | None) -> None:
    """No file is given, the file is missing, or it is a directory."""
    assert read({"NAMESPACE": "n"}, tmp_path / name if name else None).namespace == "n"


def test_an_invalid_value_in_the_env_file_is_named(tmp_path: Path) -> None:
    """The value is not quoted."""
    file = tmp_path / ".env"
    file.write_text(f'HARASOCIAL_TOKEN="Bearer {SECRET}"\n')
    assert error_of({}, file) == TOKEN_ERROR


def test_an_env_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    """Its content is not quoted."""
    file = tmp_path / ".env"
    file.write_bytes(b"HARASOCIAL_TOKEN=\xff\xfe" + SECRET.encode())
    found = error_of({}, file)
    assert found.startswith(f"{file} cannot be read: ")
    assert SECRET not in found


@pytest.mark.parametrize("name", GOOD)
def test_every_setting_may_come_from_a_file(tmp_path: Path, name: str) -> None:
    """Container secrets are files. A line break at the end is not part of the value."""
    text, value = GOOD[name]
    file = tmp_path / "secret"
    file.write_text(f"{text}\n")
    assert getattr(read({f"{name}_FILE": str(file)}), name.lower()) == value
    (tmp_path / ".env").write_text(f"HARASOCIAL_{name}_FILE={file}\n")
    assert getattr(read({}, tmp_path / ".env"), name.lower()) == value


def test_an_invalid_value_in_a_secret_file_is_named_and_not_quoted(tmp_path: Path) -> None:
    """The error is the same as for a value in the variable."""
    file = tmp_path / "secret"
    file.write_text(f"Bearer {SECRET}\n")
    assert error_of({"TOKEN_FILE": str(file)}) == TOKEN_ERROR


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: folder / "missing",
        lambda folder: folder,
        lambda folder: folder / "file" / "below",
        lambda folder: folder / "binary",
        lambda _: SECRET,
        lambda _: SECRET * 40,
    ],
    ids=["missing", "directory", "below a file", "no text", "the secret itself", "a long secret"],
)
@pytest.mark.parametrize("name", ["TOKEN", "REDIS_URL", "MAX_ATTEMPTS"])
def test_a_secret_file_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, make: Callable[[Path], Path | str]
) -> None:
    """The error has only the variable: its value may be the secret itself."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "binary").write_bytes(b"\xff\xfe" + SECRET.encode())
    (tmp_path / "good").write_text("n")
    found = error_of(
        {f"{name}_FILE": str(make(tmp_path)), "NAMESPACE_FILE": str(tmp_path / "good")}
    )
    expected = "must be the name of a readable text file (UTF-8)"
    assert found == f"HARASOCIAL_{name}_FILE {expected}"


@given(
    st.sampled_from(sorted(GOOD)),
    st.sampled_from(["", "redis://", "unix://", "https://", "http://:@", "551=transient,", "a:"]),
    st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=30),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_accepted_or_named(name: str, beginning: str, text: str) -> None:
    """The only possible exception is `SettingsError`, and it never quotes the value."""
    marked = f"{beginning}{text}~{SECRET}"
    try:
        read({name: marked})
    except SettingsError as error:
        assert str(error).startswith(f"HARASOCIAL_{name} must ")
        assert SECRET not in str(error)


@pytest.mark.parametrize(
    ("deadline", "lease", "expected"), [(20.0, 60.0, 20.0), (60.0, 60.0, 48.0), (20.0, 1.0, 0.8)]
)
def test_no_call_outlasts_its_lease(deadline: float, lease: float, expected: float) -> None:
    """Otherwise a second worker would send a job that the first one is still sending."""
    found = Settings(call_deadline_seconds=deadline, lease_seconds=lease)
    assert found.safe_call_deadline_seconds == pytest.approx(expected)


def test_settings_are_immutable() -> None:
    """Parts of the package read them at different times."""
    found: Any = Settings()
    with pytest.raises(AttributeError):
        found.token = SECRET
