"""The Django app, in separate projects: Django can be set up only once per process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import Sandbox
from harasocial_dispatch.schemas import Settings
from support.harness import DEADLINE_SECONDS, body, wait_until_ended

MANAGE = """
import sys
from pathlib import PosixPath
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["harasocial_dispatch.django_app", "shop"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    HARASOCIAL=%r,
)
from django.core.management import execute_from_command_line
if __name__ == "__main__":
    execute_from_command_line(sys.argv)
"""

MODELS = """
from django.db import models
from harasocial_dispatch.producer import enqueue  # reads the settings, before the app is ready

class Order(models.Model):
    number = models.CharField(max_length=9, primary_key=True)

    class Meta:
        app_label = "shop"
"""


class Project:
    """A Django project in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._variables = {"PATH": ""}
        (folder / "shop").mkdir()
        (folder / "shop" / "__init__.py").touch()
        (folder / "shop" / "models.py").write_text(MODELS)
        self.configure({})

    def configure(self, harasocial: Any, **variables: str) -> None:
        (self._folder / "manage.py").write_text(MANAGE % (harasocial,))
        self._variables |= variables

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self._folder,
            env=self._variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a program. Return its exit status, standard output and standard error."""
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=DEADLINE_SECONDS)
        return process.returncode, out, err

    def run_code(self, code: str) -> str:
        """Run code in the project after Django is set up. Return its output."""
        status, out, err = self.run("-c", f"import manage, django; django.setup()\n{code}")
        assert status == 0, err
        return out.strip()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_djangos_settings_take_precedence_over_the_environment(project: Project) -> None:
    """Models may import `enqueue` early. The environment provides the other settings."""
    project.configure(
        {
            "REDIS_URL": "redis://127.0.0.1:1/3",
            "PAGE_RATE": 12.5,
            "MAX_ATTEMPTS": 3,
            "FLOWER_SUCCESSES": True,
            "TOKENS_FILE": Path("/run/tokens.json"),
            "ERROR_CODE_CLASSES": {"551": "transient", "10/999": "permanent"},
            "NAMESPACE": None,
        },
        HARASOCIAL_MAX_ATTEMPTS="9",
        HARASOCIAL_NAMESPACE="shop",
        HARASOCIAL_IN_FLIGHT="7",
    )
    shown = project.run_code(
        "from shop.models import enqueue; s = enqueue.__self__.settings\n"
        "print([s.redis_url, s.page_rate, s.max_attempts, s.flower_successes, str(s.tokens_file),"
        " {k: str(v) for k, v in s.error_code_classes.items()}, s.namespace, s.in_flight])"
    )
    assert shown == str(
        [
            *("redis://127.0.0.1:1/3", 12.5, 3, True, "/run/tokens.json"),
            {"551": "transient", "10/999": "permanent"},
            *("shop", 7),
        ]
    )


@pytest.mark.parametrize(
    ("harasocial", "message"),
    [
        ({"PAGE_RAET": 1}, "HARASOCIAL['PAGE_RAET'] is not a setting; did you mean 'PAGE_RATE'?"),
        ({"page_rate": 1}, "HARASOCIAL['page_rate'] is not a setting; did you mean 'PAGE_RATE'?"),
        ({"HARASOCIAL_TOKEN": "x"}, "is not a setting; did you mean 'TOKEN'?"),
        ({7: 1}, "HARASOCIAL[7] is not a setting"),
        ({"PAGE_RATE": -1}, "HARASOCIAL['PAGE_RATE'] must be a number from 0 to 100000"),
        ({"MAX_ATTEMPTS": 2.5}, "HARASOCIAL['MAX_ATTEMPTS'] must be a whole number from 1 to 100"),
        ({"MAX_ATTEMPTS": True}, "HARASOCIAL['MAX_ATTEMPTS'] must be a whole number from 1 to 100"),
        ({"REDIS_URL": "localhost"}, "HARASOCIAL['REDIS_URL'] must begin"),
        ({"TOKEN": ["secret"]}, "HARASOCIAL['TOKEN'] must be a str, number, bool, path or dict"),
        ({"ERROR_CODE_CLASSES": {"1": "x"}}, "HARASOCIAL['ERROR_CODE_CLASSES'] must be code=class"),
        (["TOKEN"], "HARASOCIAL must be a dict of settings, not list"),
    ],
)
def test_an_invalid_setting_is_refused_by_name(
    project: Project, harasocial: Any, message: str
) -> None:
    """Django does not start, and the error names the setting."""
    project.configure(harasocial)
    status, _, err = project.run("manage.py", "check")
    assert status != 0
    assert "ImproperlyConfigured" in err
    assert message in err.strip().splitlines()[-1]
    assert "secret" not in err.strip().splitlines()[-1]


def test_an_invalid_environment_variable_keeps_its_name(project: Project) -> None:
    """The error does not name a setting of Django."""
    project.configure({"PAGE_RATE": 1}, HARASOCIAL_MAX_ATTEMPTS="many")
    _, _, err = project.run("manage.py", "check")
    assert "HARASOCIAL_MAX_ATTEMPTS must be a whole number" in err


def test_the_command_line_uses_djangos_settings(
    project: Project, settings: Settings, producer: Producer, sandbox: Sandbox
) -> None:
    """`manage.py harasocial worker` sends jobs. Other commands work as usual."""
    project.configure(
        {
            "REDIS_URL": settings.redis_url,
            "NAMESPACE": settings.namespace,
            "API_URL": sandbox.url,
            "TOKEN": "sandbox-token",
        }
    )
    job_id = producer.enqueue(body())
    status, out, _ = project.run("manage.py", "harasocial", "show", job_id, "--json")
    assert (status, json.loads(out)["state"]) == (0, "queued")

    worker = project.start("manage.py", "harasocial", "worker", "--pool", "solo")
    try:
        (job,) = wait_until_ended(producer, [job_id])
        assert str(job.state) == "sent"
    finally:
        worker.terminate()
        worker.communicate(timeout=DEADLINE_SECONDS)
    assert worker.returncode == 0

    status, _, err = project.run("manage.py", "harasocial", "show", "0" * 32)
    assert (status, err.strip()) == (1, f"Error: no job has the id '{'0' * 32}': it never existed, "
                                        "or its retention has ended")  # fmt: skip
    status, out, _ = project.run("manage.py", "harasocial")
    assert (status, "Usage: manage.py harasocial" in out) == (0, True)
    status, out, _ = project.run("manage.py", "harasocial", "worker", "--help")
    assert "CELERY OPTIONS" in out


ON_COMMIT = """
import logging
from django.core.management import call_command
from django.db import transaction
from harasocial_dispatch.django_app import enqueue_on_commit
from harasocial_dispatch.producer import InvalidJob, QueueUnavailable
from harasocial_dispatch.testing import TestKit
from shop.models import Order

call_command("migrate", run_syncdb=True, verbosity=0)
body = {"recipient": {"id": "1"}, "message": {"payload_id": "p"}, "page_id": "2"}
kit = TestKit()
kit.__enter__()
stored = []
"""


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(
            """
with transaction.atomic():
    enqueue_on_commit(body, idempotency_key="k", urgent=True, on_enqueued=stored.append)
    body["page_id"] = "3"
    kit.assert_enqueued(count=0)
(job,) = kit.assert_enqueued(idempotency_key="k", page_id="2", count=1)
assert stored == [job.job_id], stored
""",
            id="enqueued at the commit, as it was",
        ),
        pytest.param(
            """
try:
    with transaction.atomic():
        enqueue_on_commit(body, idempotency_key="k")
        raise OSError
except OSError:
    pass
kit.assert_enqueued(count=0)
""",
            id="not after a rollback",
        ),
        pytest.param(
            """
enqueue_on_commit(body, idempotency_key="k")
kit.assert_enqueued(count=1)
""",
            id="at once without a transaction",
        ),
        pytest.param(
            """
try:
    with transaction.atomic():
        Order.objects.create(number="1")
        enqueue_on_commit({**body, "page_id": 5}, idempotency_key="k")
except InvalidJob as error:
    assert list(error.errors) == ["page_id"]
else:
    raise AssertionError("nothing was raised")
assert Order.objects.count() == 0
kit.assert_enqueued(count=0)
""",
            id="an invalid job rolls back",
        ),
        pytest.param(
            """
lines = []
handler = logging.Handler()
handler.emit = lambda record: lines.append(record.getMessage())
logging.getLogger("harasocial_dispatch.django_app").addHandler(handler)
enqueue_on_commit(body, idempotency_key="k")
with transaction.atomic():
    Order.objects.create(number="1")
    enqueue_on_commit({**body, "page_id": "9"}, idempotency_key="k", on_enqueued=stored.append)
    transaction.on_commit(lambda: stored.append("next"))
assert (Order.objects.count(), stored) == (1, ["next"]), stored
assert lines[0].startswith("the message with the idempotency key 'k' is not enqueued: idemp"), lines
""",
            id="an error after the commit is logged",
        ),
    ],
)
def test_enqueue_on_commit(project: Project, code: str) -> None:
    """Without a commit, no message is enqueued."""
    project.run_code(f"{ON_COMMIT}{code}")
