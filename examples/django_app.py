"""A Django project in one file that enqueues messages and shows their state.

    python examples/django_app.py migrate --run-syncdb
    python examples/django_app.py runserver
    python examples/django_app.py harasocial worker

`POST /messages` enqueues immediately. `POST /orders` shows the usual case: the message belongs to a
row of the database. It is enqueued when the row is committed, and not after a rollback.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable

import django
from django import forms
from django.apps import AppConfig
from django.conf import settings
from django.core.exceptions import NON_FIELD_ERRORS
from django.core.management import execute_from_command_line
from django.core.management.utils import get_random_secret_key
from django.core.validators import RegexValidator
from django.core.wsgi import get_wsgi_application
from django.db import models, transaction
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.urls import path, reverse
from django.views.decorators.http import require_POST, require_safe
from harasocial_dispatch import producer
from harasocial_dispatch.django_app import enqueue_on_commit
from harasocial_dispatch.producer import (
    EnqueueUnknown,
    IdempotencyConflict,
    InvalidJob,
    JobNotFound,
    QueueUnavailable,
)

KEY_IN_USE = "This Idempotency-Key belongs to another message. Use another key for another message."
#: The `Retry-After` for clients if Redis is not available.
RETRY_AFTER_SECONDS = 5
#: The page and the payload of the message for a new order.
PAGE_ID = "500725830264749"
ORDER_PLACED_PAYLOAD = "__hrf_f_63072efd8d1cc15d16c3848e_s_4d12c525111725943cdbf556bd57687d"

logger = logging.getLogger(__name__)


class Orders(AppConfig):
    name = __name__
    label = "orders"
    default_auto_field = "django.db.models.BigAutoField"

    def import_models(self) -> None:
        super().import_models()
        self.models_module = self.module  # the models are in this file, not in a models.py


settings.configure(
    DEBUG=os.environ.get("DJANGO_DEBUG") == "1",
    SECRET_KEY=os.environ.get("DJANGO_SECRET_KEY") or get_random_secret_key(),
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    ROOT_URLCONF=__name__,
    # Must be first, so that the following apps use its settings.
    INSTALLED_APPS=["harasocial_dispatch.django_app", f"{__name__}.Orders"],
    # The environment provides all other settings, such as the token.
    HARASOCIAL={"EXPIRES_SECONDS": 6 * 3600},
    # No protection against CSRF is needed, because no cookie identifies the client.
    MIDDLEWARE=["django.middleware.common.CommonMiddleware", f"{__name__}.QueueErrors"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ.get("ORDERS_DATABASE", "orders.sqlite3"),
        }
    },
)
# Read the settings here, so that an invalid setting stops the start and not the first request.
django.setup()


class Order(models.Model):
    number = models.SlugField(max_length=40, unique=True)
    customer_psid = models.CharField(max_length=32, validators=[RegexValidator(r"\A[0-9]+\Z")])
    #: The job of its message; empty until the message is enqueued.
    job_id = models.CharField(max_length=32, blank=True, db_index=True)


class OrderForm(forms.ModelForm):
    class Meta:
        model = Order
        fields = ("number", "customer_psid")


@require_POST
def place_order(request: HttpRequest) -> JsonResponse:
    form = OrderForm(request.POST)
    if not form.is_valid():
        errors = {field: list(texts) for field, texts in form.errors.items()}
        return JsonResponse({"errors": errors}, status=400)
    order = save_order(form.instance)
    return JsonResponse({"number": order.number, "job_id": order.job_id or None}, status=201)


@transaction.atomic
def save_order(order: Order) -> Order:
    order.save()
    # Do not enqueue here: the message would be sent even if the transaction is rolled back later.
    enqueue_for(order)
    return order


def enqueue_for(order: Order) -> None:
    body = {
        "recipient": {"id": order.customer_psid},
        "message": {"payload_id": ORDER_PLACED_PAYLOAD},
        "page_id": PAGE_ID,
        "metadata": f"order {order.number}",
    }

    def save_job_id(job_id: str) -> None:
        order.job_id = job_id
        order.save(update_fields=["job_id"])

    # If Redis is not available, the error is logged and the order is saved. Its job_id stays empty,
    # so enqueue_missing finds it.
    enqueue_on_commit(body, idempotency_key=f"order-placed-{order.number}", on_enqueued=save_job_id)


def enqueue_missing() -> None:
    """Enqueue the messages that were missed in an outage or a crash. Call it from a cron job.

    Because of the idempotency key, this is safe even if a message was already enqueued.
    """
    for order in Order.objects.filter(job_id=""):
        enqueue_for(order)


@require_POST
def send_message(request: HttpRequest) -> JsonResponse:
    try:
        body = json.loads(request.body)
    except ValueError:
        return JsonResponse({"errors": {NON_FIELD_ERRORS: ["Is not JSON."]}}, status=400)
    job_id = producer.enqueue(body, idempotency_key=request.headers.get("Idempotency-Key"))
    location = reverse(show_message, args=[job_id])
    return JsonResponse({"job_id": job_id}, status=202, headers={"Location": location})


@require_safe
def show_message(_: HttpRequest, job_id: str) -> JsonResponse:
    job = producer.get_job(job_id)
    return JsonResponse(
        {"state": job.state, "error_code": job.error_code, "error_message": job.error_message}
    )


class QueueErrors:
    """Middleware that converts the errors of `producer` to responses."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_exception(self, _: HttpRequest, error: Exception) -> JsonResponse | None:
        match error:
            case InvalidJob():
                # Django's forms use this name for errors of the whole input.
                names = {"job": NON_FIELD_ERRORS}
                errors = {names.get(path, path): texts for path, texts in error.errors.items()}
                return JsonResponse({"errors": errors}, status=400)
            case IdempotencyConflict():
                return JsonResponse({"error": KEY_IN_USE, "fields": error.fields}, status=409)
            case JobNotFound():
                return JsonResponse({"error": "There is no message with this id."}, status=404)
            case EnqueueUnknown():
                return unavailable(
                    error,
                    error="Whether the message was enqueued is not known. Try again with the same "
                    "Idempotency-Key: that makes one message. Without a key, look first whether "
                    "there is a message with this job_id.",
                    job_id=error.job_ids[0],
                )
            case QueueUnavailable():
                return unavailable(error, error="The queue is not available. Try again soon.")
        return None


def unavailable(reason: QueueUnavailable, /, **answer: str) -> JsonResponse:
    # Log the details for the operator. The client only gets the time to try again.
    logger.warning("%s", reason)
    return JsonResponse(answer, status=503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


urlpatterns = [
    path("messages", send_message),
    path("messages/<str:job_id>", show_message),
    path("orders", place_order),
]
application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
