"""The Django example, and messages that belong to a database row."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from urllib.parse import urlencode

import pytest
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.testing import TestKit
from support.processes import run_program
from support.web_apps import Answer, Outage, WebApp

EXAMPLE = Path(__file__).parents[2] / "examples" / "django_app.py"
PSID = "2560816460648749"

#: The type of the fixture `place`: its arguments are the fields of the form.
Place = Callable[..., Answer]


@pytest.fixture
def place(django_app: WebApp) -> Place:
    """POST a form to /orders."""

    def post(**fields: str) -> Answer:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return django_app.request("POST", "/orders", urlencode(fields).encode(), headers)

    return post


def count_jobs(producer: Producer) -> int:
    return sum(producer.count_states().values())


def test_field_errors_are_a_bad_request(django_app: WebApp) -> None:
    """The status is 400, with errors by field as in a Django form."""
    answer = django_app.post(b'{"recipient": {"id": 5}, "colour": "red"}', idempotency_key=" ")

    assert answer.status == 400
    assert answer.json["errors"].keys() == {
        "recipient.id",
        "message",
        "page_id",
        "colour",
        "idempotency_key",
    }
    for body in (b"[]", b"{"):
        assert list(django_app.post(body).json["errors"]) == ["__all__"]


def test_an_order_is_followed_by_its_message(
    place: Place, django_module: ModuleType, harasocial: TestKit
) -> None:
    """The status is 201, and the order's job is enqueued."""
    answer = place(number="1001", customer_psid=PSID)

    assert answer.status == 201
    order = django_module.Order.objects.get(number="1001")
    assert answer.json == {"number": "1001", "job_id": order.job_id}
    (job,) = harasocial.assert_enqueued(recipient_id=PSID, metadata="order 1001")
    assert job.job_id == order.job_id


def test_an_invalid_order_is_rejected_by_the_form(
    place: Place, django_module: ModuleType, harasocial: TestKit
) -> None:
    """The status is 400 with Django's messages, without an order or a job."""
    answer = place(number="10 01", customer_psid="someone")

    assert answer.status == 400
    assert answer.json["errors"].keys() == {"number", "customer_psid"}
    assert all(isinstance(text, str) for texts in answer.json["errors"].values() for text in texts)
    assert django_module.Order.objects.count() == 0
    harasocial.assert_enqueued(count=0)


def test_a_rollback_leaves_neither_order_nor_message(
    django_app: WebApp, django_module: ModuleType, harasocial: TestKit
) -> None:
    """If the transaction fails later, nothing was enqueued."""
    from django.db import transaction

    class OutOfStockError(Exception):
        pass

    def order_what_is_out_of_stock() -> None:
        with transaction.atomic():
            django_module.save_order(django_module.Order(number="1001", customer_psid=PSID))
            raise OutOfStockError

    with pytest.raises(OutOfStockError):
        order_what_is_out_of_stock()

    assert django_module.Order.objects.count() == 0
    harasocial.assert_enqueued(count=0)


def test_nothing_is_enqueued_before_the_commit(
    django_app: WebApp, django_module: ModuleType, harasocial: TestKit
) -> None:
    """A worker never claims a job whose order is not committed."""
    from django.db import transaction

    with transaction.atomic():
        order = django_module.save_order(django_module.Order(number="1001", customer_psid=PSID))
        harasocial.assert_enqueued(count=0)

    (job,) = harasocial.assert_enqueued(metadata="order 1001")
    assert job.job_id == order.job_id


def test_an_outage_does_not_reject_the_order(
    place: Place, away: Outage, django_module: ModuleType, producer: Producer
) -> None:
    """The order is stored without its message, which is enqueued once when Redis is back."""
    with away():
        answer = place(number="1001", customer_psid=PSID)
    assert answer.status == 201
    assert answer.json == {"number": "1001", "job_id": None}

    django_module.enqueue_missing()
    django_module.enqueue_missing()
    order = django_module.Order.objects.get(number="1001")
    assert producer.get_job(order.job_id).state == "queued"
    assert count_jobs(producer) == 1


def test_a_lost_reply_does_not_create_a_second_message(
    place: Place, halted: Outage, django_module: ModuleType, producer: Producer
) -> None:
    """If the message was stored, it is found by its idempotency key."""
    assert place(number="1000", customer_psid=PSID).json["job_id"]
    with halted():
        assert place(number="1001", customer_psid=PSID).json["job_id"] is None

    django_module.enqueue_missing()
    assert django_module.Order.objects.filter(job_id="").count() == 0
    assert count_jobs(producer) == 2


def test_one_order_in_conflict_does_not_block_the_others(
    place: Place, django_module: ModuleType, producer: Producer
) -> None:
    """An earlier order has the same key. Its message stays, and the next ones are enqueued."""
    assert place(number="1001", customer_psid=PSID).status == 201
    django_module.Order.objects.all().delete()
    answer = place(number="1001", customer_psid="77")
    assert (answer.status, answer.json["job_id"]) == (201, None)

    django_module.Order.objects.create(number="1002", customer_psid=PSID)
    django_module.enqueue_missing()
    assert [order.number for order in django_module.Order.objects.filter(job_id="")] == ["1001"]
    assert count_jobs(producer) == 2


def test_the_commands_at_the_top_of_the_file_work(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    """As a program, the file creates its table and passes Django's checks."""
    environment = {
        "PATH": "",
        "HARASOCIAL_REDIS_URL": valkey.url,
        "ORDERS_DATABASE": str(tmp_path / "orders.sqlite3"),
    }
    for arguments, expected in [
        (["migrate", "--run-syncdb"], "Creating table orders_order"),
        (["check", "--fail-level", "WARNING"], "no issues"),
        (["harasocial", "stats"], "queued"),
        (["dumpdata", "orders"], json.dumps([])),
    ]:
        run = run_program(
            sys.executable, EXAMPLE, *arguments, check=True, env=environment, cwd=tmp_path
        )
        assert expected in run.stdout
