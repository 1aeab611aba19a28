"""compose.yaml: valid by the specification, and every name in it is one that there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from celery.bin.worker import worker as celery_worker
from flower.options import options as flower_options
from flower.urls import handlers
from harasocial_dispatch.cli import commands
from harasocial_dispatch.sandbox import DEFAULT_TOKEN, Sandbox
from harasocial_dispatch.schemas import Settings
from harasocial_dispatch.worker.pump import FINAL_RECORD_TIMEOUT_SECONDS, SLICE_SECONDS

COMPOSE_FILE = Path(__file__).parents[2] / "docker" / "compose.yaml"
VALIDATE = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]


def network_of(compose, name):
    """Whose network namespace a service is in, or the networks it is on."""
    service = compose["services"][name]
    mode = service.get("network_mode")
    return mode.partition(":")[2] if mode else set(service.get("networks", ["default"]))


def options_of(command):
    """Which options a command of ours has; Celery's and Flower's own ones are handed through."""
    if command == "flower":
        return {f"--{name.replace('_', '-')}" for name in flower_options}
    params = (celery_worker if command == "worker" else commands.commands[command]).params
    return {option for param in params for option in param.opts}


def test_it_is_valid():
    """By the JSON schema of the Compose specification."""
    checked = subprocess.run([*VALIDATE, COMPOSE_FILE], capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("restart:", "restarts:"),
        ("condition: service_healthy", "condition: 1"),
        ("init: true", "init: []"),
    ],
)
def test_a_mistake_would_be_found(compose_text, tmp_path, right, wrong):
    """The check of the schema is one that can fail."""
    broken = tmp_path / "compose.yaml"
    broken.write_text(compose_text.replace(right, wrong))

    assert subprocess.run([*VALIDATE, broken], capture_output=True, check=False).returncode == 1


def test_there_is_a_live_and_a_sandbox_profile(compose):
    """Each service is in exactly one, so that neither profile starts a part of the other."""
    by_profile = {}
    for name, service in compose["services"].items():
        (profile,) = service["profiles"]
        by_profile.setdefault(profile, set()).add(name)

    assert by_profile == {
        "live": {"redis", "worker", "flower"},
        "sandbox": {"sandbox", "sandbox-redis", "sandbox-worker", "sandbox-flower"},
    }


def test_services_refer_to_services_of_their_profile(compose):
    """By `depends_on` and `network_mode`; a service of another profile would not be running."""
    services = compose["services"]
    for name, service in services.items():
        referred = set(service.get("depends_on", ()))
        if "network_mode" in service:
            referred.add(network_of(compose, name))
        for other in referred:
            assert services[other]["profiles"] == service["profiles"]


def test_commands_and_options_are_the_programs(our_services):
    """Each service runs a command of ours, with options that it has."""
    for service in our_services.values():
        program, command, *options = service["command"]
        assert program == "harasocial-dispatch"
        assert command in commands.commands
        assert {option.split("=")[0] for option in options} <= options_of(command)


def test_the_image_is_built_once_in_each_profile(our_services):
    """From the Dockerfile here, with the repository as its context."""
    built = [service for service in our_services.values() if "build" in service]

    assert sorted(service["profiles"] for service in built) == [["live"], ["sandbox"]]
    for service in built:
        context = COMPOSE_FILE.parent / service["build"]["context"]
        assert (context / service["build"]["dockerfile"]).is_file()
        assert (context / "setup.cfg").is_file()


def test_variables_are_settings(our_services, setting_names):
    """Each HARASOCIAL_ variable is read by the program, or names a file with a setting in it."""
    with_files = setting_names | {f"{name}_FILE" for name in setting_names}
    for service in our_services.values():
        assert set(service.get("environment", {})) <= with_files


def test_nothing_secret_is_in_the_file(our_services):
    """A token or password comes from a file; the stand-in's token is none."""
    for service in our_services.values():
        for name, text in service.get("environment", {}).items():
            if "TOKEN" in name or "AUTH" in name:
                assert name.endswith("_FILE") or text == DEFAULT_TOKEN
            assert urlsplit(text).password is None


def test_secrets_are_given_where_they_are_read(compose, make_secrets):
    """A service has the secrets it reads, no other, and make-secrets.sh makes the file of each."""
    made = make_secrets()
    for service in compose["services"].values():
        read = re.findall(r"/run/secrets/(\w+)", str(service))
        assert set(read) == set(service.get("secrets", ()))
    for name, secret in compose["secrets"].items():
        assert secret == {"file": f"secrets/{name}"}
        assert (made / name).is_file()
    assert len(list(made.iterdir())) == len(compose["secrets"])


def test_the_settings_of_each_service_are_read_and_lead_somewhere(
    compose, our_services, make_secrets, monkeypatch
):
    """Redis is a service in reach; the worker has a token; Flower has a login."""
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
            assert network_of(compose, name) == network_of(compose, "sandbox-redis") == "sandbox"
        else:
            assert network_of(compose, name) & network_of(compose, host)
        assert bool(settings.token) == ("worker" in name)
        assert bool(settings.flower_basic_auth) == ("flower" in name)


def test_the_sandbox_worker_finds_the_stand_in(our_services):
    """Its endpoint and token are those of the sandbox service, in the same network namespace."""
    with Sandbox() as sandbox:
        path = urlsplit(sandbox.url).path
    (option,) = our_services["sandbox"]["command"][2:]
    port = option.partition("=")[2]

    worker = our_services["sandbox-worker"]
    assert worker["environment"]["HARASOCIAL_API_URL"] == f"http://127.0.0.1:{port}{path}"
    assert worker["environment"]["HARASOCIAL_TOKEN"] == DEFAULT_TOKEN
    assert worker["network_mode"] == "service:sandbox"


def test_only_flower_is_published_and_only_on_this_machine(compose):
    """Its port is the one that Flower listens on, at every address of its container."""
    published = {
        name: service["ports"]
        for name, service in compose["services"].items()
        if "ports" in service
    }

    # In the sandbox, the service whose network namespace Flower is in publishes for it.
    assert published == {
        "flower": ["127.0.0.1:5555:5555"],
        network_of(compose, "sandbox-flower"): ["127.0.0.1:5556:5555"],
    }
    for name in ("flower", "sandbox-flower"):
        assert compose["services"][name]["command"][2:] == ["--address=0.0.0.0", "--port=5555"]


def test_redis_is_reached_from_the_inside_alone(compose):
    """It is on a network without a way out; worker and Flower are on another one besides."""
    assert network_of(compose, "redis") == {"queue"}
    assert compose["networks"]["queue"] == {"internal": True}
    for name in ("worker", "flower"):
        assert network_of(compose, name) == {"queue", "outside"}


def test_workers_can_be_many(compose):
    """Nothing in the service is for one container only."""
    worker = compose["services"]["worker"]

    assert not {"container_name", "hostname", "ports", "network_mode", "volumes"} & set(worker)
    assert worker["scale"] >= 1


@pytest.mark.parametrize("name", ["worker", "sandbox-worker"])
def test_a_stopped_worker_has_time_to_end_its_calls(compose, name):
    """The grace is longer than a slice, a call and the last words to Redis together."""
    grace_seconds = int(compose["services"][name]["stop_grace_period"].removesuffix("s"))

    settings = Settings()
    assert grace_seconds > (
        SLICE_SECONDS + settings.safe_call_deadline_seconds + FINAL_RECORD_TIMEOUT_SECONDS
    )


def test_containers_have_no_rights_they_do_not_need(compose):
    """No capability, no new privileges, no writing beside /tmp and volumes, never as root."""
    for service in compose["services"].values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp"]
        assert "privileged" not in service
        assert service.get("user", "redis") == "redis"


def bytes_of(size):
    """Return what a size of Docker's or Redis' means."""
    number, unit = re.fullmatch(r"(\d+)(mb|gb)", size).groups()
    return int(number) * 1024 ** {"mb": 2, "gb": 3}[unit]


def test_no_container_can_take_all_of_the_machine(compose):
    """Memory, and processes with their threads, have a limit in each of them."""
    for name, service in compose["services"].items():
        assert 256 * 1024**2 <= bytes_of(service["mem_limit"]) <= 4 * 1024**3, name
        assert 50 <= int(service["pids_limit"]) <= 2048, name


def test_the_limits_leave_room_for_what_runs(compose):
    """By default: a worker's processes and threads fit, with a health check beside them."""
    worker = compose["services"]["worker"]
    (processes,) = re.findall(r"--concurrency=(\d+)", " ".join(worker["command"]))
    settings = Settings()
    assert int(worker["pids_limit"]) >= int(processes) * settings.in_flight + 100
    assert bytes_of(worker["mem_limit"]) >= int(processes) * 256 * 1024**2


@pytest.mark.parametrize("name", ["redis", "sandbox-redis"])
def test_redis_refuses_jobs_before_it_is_killed_and_evicts_none(compose, name):
    """Its own limit is half of the container's: a rewrite of its file may need the other half."""
    service = compose["services"][name]
    command = " ".join(service["command"])
    (maxmemory,) = re.findall(r"maxmemory (\d+[mg]b)", command)
    assert bytes_of(service["mem_limit"]) >= 2 * bytes_of(maxmemory)
    assert re.findall(r"maxmemory-policy (\w+)", command) == ["noeviction"]


def test_the_paths_of_health_checks_exist(our_services):
    """Of Flower, here; that of the sandbox is asked for real elsewhere."""
    for name in ("flower", "sandbox-flower"):
        (url,) = re.findall(r"http://[^']+", our_services[name]["healthcheck"]["test"][-1])
        assert urlsplit(url).port == 5555
        assert urlsplit(url).path in {
            handler[0] for handler in handlers if isinstance(handler, tuple)
        }
