"""compose.yaml is valid, and all names in it exist."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery.bin.worker import worker as celery_worker
from flower.options import options as flower_options
from flower.urls import handlers
from harasocial_dispatch.cli import commands
from harasocial_dispatch.sandbox import DEFAULT_TOKEN, Sandbox
from harasocial_dispatch.schemas import Settings
from harasocial_dispatch.worker.pump import FINAL_RECORD_TIMEOUT_SECONDS, SLICE_SECONDS
from support.harness import present
from support.processes import run_program

COMPOSE_FILE = Path(__file__).parents[2] / "docker" / "compose.yaml"
VALIDATE = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]


def networks_of(compose: dict[str, Any], name: str) -> set[str]:
    """Return the networks of a service. In the namespace of another service, it has none."""
    service = compose["services"][name]
    return set() if "network_mode" in service else set(service.get("networks", ["default"]))


def namespace_of(compose: dict[str, Any], name: str) -> str | None:
    """Return the service whose network namespace a service uses."""
    found = re.fullmatch("service:(.*)", compose["services"][name].get("network_mode", ""))
    return found and found[1]


def options_of(command: str) -> set[str]:
    """Return the options of a command, including those of Celery and Flower."""
    if command == "flower":
        return {f"--{name.replace('_', '-')}" for name in flower_options}
    params = (celery_worker if command == "worker" else commands.commands[command]).params
    return {option for param in params for option in param.opts}


def test_the_file_is_valid() -> None:
    """The JSON schema of the Compose specification accepts it."""
    checked = run_program(*VALIDATE, COMPOSE_FILE)

    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("restart:", "restarts:"),
        ("condition: service_healthy", "condition: 1"),
        ("init: true", "init: []"),
    ],
)
def test_the_validation_finds_mistakes(
    compose_text: str, tmp_path: Path, right: str, wrong: str
) -> None:
    """The schema rejects invalid files."""
    broken = tmp_path / "compose.yaml"
    broken.write_text(compose_text.replace(right, wrong))

    assert run_program(*VALIDATE, broken).returncode == 1


def test_the_profiles_are_live_and_sandbox(compose: dict[str, Any]) -> None:
    """Each service is in exactly one profile, so that a profile starts only its own services."""
    by_profile: dict[str, set[str]] = {}
    for name, service in compose["services"].items():
        (profile,) = service["profiles"]
        by_profile.setdefault(profile, set()).add(name)

    assert by_profile == {
        "live": {"redis", "worker", "flower"},
        "sandbox": {"sandbox", "sandbox-redis", "sandbox-worker", "sandbox-flower"},
    }


def test_services_refer_only_to_services_of_their_profile(compose: dict[str, Any]) -> None:
    """A service of another profile, in `depends_on` or `network_mode`, would not run."""
    services = compose["services"]
    for name, service in services.items():
        referred = set(service.get("depends_on", ()))
        if "network_mode" in service:
            referred.add(namespace_of(compose, name))
        for other in referred:
            assert services[other]["profiles"] == service["profiles"]


def test_commands_and_options_exist(our_services: dict[str, Any]) -> None:
    """Each service runs an existing command with existing options."""
    for service in our_services.values():
        program, command, *options = service["command"]
        assert program == "harasocial-dispatch"
        assert command in commands.commands
        assert {option.split("=")[0] for option in options} <= options_of(command)


def test_the_image_is_built_once_in_each_profile(our_services: dict[str, Any]) -> None:
    """The build uses docker/Dockerfile, with the repository as context."""
    built = [service for service in our_services.values() if "build" in service]

    assert sorted(service["profiles"] for service in built) == [["live"], ["sandbox"]]
    for service in built:
        context = COMPOSE_FILE.parent / service["build"]["context"]
        assert (context / service["build"]["dockerfile"]).is_file()
        assert (context / "setup.cfg").is_file()


def test_variables_are_settings(our_services: dict[str, Any], setting_names: set[str]) -> None:
    """Each HARASOCIAL_ variable is a setting, or names a file with the value of a setting."""
    with_files = setting_names | {f"{name}_FILE" for name in setting_names}
    for service in our_services.values():
        assert set(service.get("environment", {})) <= with_files


def test_nothing_secret_is_in_the_file(our_services: dict[str, Any]) -> None:
    """Tokens and passwords come from files. The sandbox's token is not secret."""
    for service in our_services.values():
        for name, text in service.get("environment", {}).items():
            if "TOKEN" in name or "AUTH" in name:
                assert name.endswith("_FILE") or text == DEFAULT_TOKEN
            assert urlsplit(text).password is None


def test_each_service_has_only_the_secrets_that_it_reads(
    compose: dict[str, Any], make_secrets: Callable[..., Path]
) -> None:
    """make-secrets.sh creates the file of each secret."""
    made = make_secrets()
    for service in compose["services"].values():
        read = re.findall(r"/run/secrets/(\w+)", str(service))
        assert set(read) == set(service.get("secrets", ()))
    for name, secret in compose["secrets"].items():
        assert secret == {"file": f"secrets/{name}"}
        assert (made / name).is_file()
    assert len(list(made.iterdir())) == len(compose["secrets"])


def test_the_settings_of_each_service_are_valid(
    compose: dict[str, Any],
    our_services: dict[str, Any],
    make_secrets: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Redis is a reachable service, the worker has a token, and Flower has a login."""
    made = make_secrets("a-token")
    for name, service in our_services.items():
        if name == "sandbox":
            continue
        with monkeypatch.context() as environment:
            for variable, text in service["environment"].items():
                environment.setenv(variable, text.replace("/run/secrets", str(made)))
            settings = Settings.from_environment(None)
        host = urlsplit(settings.redis_url).hostname
        if host == "127.0.0.1":
            assert (
                namespace_of(compose, name) == namespace_of(compose, "sandbox-redis") == "sandbox"
            )
        else:
            assert networks_of(compose, name) & networks_of(compose, present(host))
        assert bool(settings.token) == ("worker" in name)
        assert bool(settings.flower_basic_auth) == ("flower" in name)


def test_the_sandbox_worker_finds_the_stand_in(our_services: dict[str, Any]) -> None:
    """It uses the URL and token of the sandbox service, in the same network namespace."""
    with Sandbox() as sandbox:
        path = urlsplit(sandbox.url).path
    (option,) = our_services["sandbox"]["command"][2:]
    port = option.partition("=")[2]

    worker = our_services["sandbox-worker"]
    assert worker["environment"]["HARASOCIAL_API_URL"] == f"http://127.0.0.1:{port}{path}"
    assert worker["environment"]["HARASOCIAL_TOKEN"] == DEFAULT_TOKEN
    assert worker["network_mode"] == "service:sandbox"


def test_only_flower_is_published_and_only_on_this_machine(compose: dict[str, Any]) -> None:
    """The published port is the one where Flower listens, on all addresses of its container."""
    published = {
        name: service["ports"]
        for name, service in compose["services"].items()
        if "ports" in service
    }

    # In the sandbox profile, the service that owns Flower's network namespace publishes the port.
    assert published == {
        "flower": ["127.0.0.1:5555:5555"],
        namespace_of(compose, "sandbox-flower"): ["127.0.0.1:5556:5555"],
    }
    for name in ("flower", "sandbox-flower"):
        assert compose["services"][name]["command"][2:] == ["--address=0.0.0.0", "--port=5555"]


def test_redis_is_only_in_the_internal_network(compose: dict[str, Any]) -> None:
    """The network is internal. Worker and Flower are also on another network."""
    assert networks_of(compose, "redis") == {"queue"}
    assert compose["networks"]["queue"] == {"internal": True}
    for name in ("worker", "flower"):
        assert networks_of(compose, name) == {"queue", "outside"}


def test_the_worker_service_can_be_scaled(compose: dict[str, Any]) -> None:
    """No option of the service is limited to one container."""
    worker = compose["services"]["worker"]

    assert not {"container_name", "hostname", "ports", "network_mode", "volumes"} & set(worker)
    assert worker["scale"] >= 1


@pytest.mark.parametrize("name", ["worker", "sandbox-worker"])
def test_a_stopped_worker_has_time_to_end_its_calls(compose: dict[str, Any], name: str) -> None:
    """The grace period is longer than a slice, a call and the final record timeout together."""
    grace_seconds = int(compose["services"][name]["stop_grace_period"].removesuffix("s"))

    settings = Settings()
    assert grace_seconds > (
        SLICE_SECONDS + settings.safe_call_deadline_seconds + FINAL_RECORD_TIMEOUT_SECONDS
    )


def test_containers_have_no_rights_they_do_not_need(compose: dict[str, Any]) -> None:
    """They have no capabilities, no new privileges, a read-only file system, and a normal user."""
    for service in compose["services"].values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp"]
        assert "privileged" not in service
        assert service.get("user", "redis") == "redis"


def bytes_of(size: str) -> int:
    """Return a size of Docker or Redis in bytes."""
    number, unit = size[:-2], size[-2:]
    return int(number) * {"mb": 1024**2, "gb": 1024**3}[unit]


def test_every_container_has_memory_and_process_limits(compose: dict[str, Any]) -> None:
    """The limits are for memory, and for processes and threads."""
    for name, service in compose["services"].items():
        assert 256 * 1024**2 <= bytes_of(service["mem_limit"]) <= 4 * 1024**3, name
        assert 50 <= int(service["pids_limit"]) <= 2048, name


def test_the_limits_are_large_enough_for_the_processes(compose: dict[str, Any]) -> None:
    """The defaults allow a worker's processes and threads, and a health check."""
    worker = compose["services"]["worker"]
    (processes,) = re.findall(r"--concurrency=(\d+)", " ".join(worker["command"]))
    settings = Settings()
    assert int(worker["pids_limit"]) >= int(processes) * settings.in_flight + 100
    assert bytes_of(worker["mem_limit"]) >= int(processes) * 256 * 1024**2


@pytest.mark.parametrize("name", ["redis", "sandbox-redis"])
def test_redis_refuses_jobs_below_its_memory_limit_and_evicts_none(
    compose: dict[str, Any], name: str
) -> None:
    """`maxmemory` is half of the container's limit, because a rewrite may need the other half."""
    service = compose["services"][name]
    command = " ".join(service["command"])
    (maxmemory,) = re.findall(r"maxmemory (\d+[mg]b)", command)
    assert bytes_of(service["mem_limit"]) >= 2 * bytes_of(maxmemory)
    assert re.findall(r"maxmemory-policy (\w+)", command) == ["noeviction"]


def test_the_paths_of_health_checks_exist(our_services: dict[str, Any]) -> None:
    """The path of Flower is checked here. Another test checks that of the sandbox."""
    for name in ("flower", "sandbox-flower"):
        (url,) = re.findall(r"http://[^']+", our_services[name]["healthcheck"]["test"][-1])
        assert urlsplit(url).port == 5555
        assert urlsplit(url).path in {
            handler[0] for handler in handlers if isinstance(handler, tuple)
        }
