"""A Flask app that enqueues messages and shows their state.

flask --app examples/flask_app run
"""

from __future__ import annotations

from typing import Any

from flask import Flask, current_app, request, url_for
from harasocial_dispatch.producer import (
    EnqueueUnknown,
    IdempotencyConflict,
    InvalidJob,
    JobNotFound,
    Producer,
    QueueUnavailable,
)
from werkzeug.exceptions import HTTPException

KEY_IN_USE = "This Idempotency-Key belongs to another message. Use another key for another message."
#: The `Retry-After` for clients if Redis is not available.
RETRY_AFTER_SECONDS = 5

Answer = tuple[dict[str, Any], int, dict[str, str]]


def create_app() -> Flask:
    app = Flask(__name__)
    # Read the settings here, so that an invalid setting stops the start and not the first request.
    producer = Producer()

    @app.post("/messages")
    def send_message() -> Answer:
        key = request.headers.get("Idempotency-Key")
        job_id = producer.enqueue(request.get_json(), idempotency_key=key)
        return {"job_id": job_id}, 202, {"Location": url_for("show_message", job_id=job_id)}

    @app.get("/messages/<job_id>")
    def show_message(job_id: str) -> dict[str, Any]:
        job = producer.get_job(job_id)
        return {
            "state": job.state,
            "error_code": job.error_code,
            "error_message": job.error_message,
        }

    app.register_error_handler(InvalidJob, invalid_job)
    app.register_error_handler(IdempotencyConflict, idempotency_conflict)
    app.register_error_handler(JobNotFound, job_not_found)
    app.register_error_handler(QueueUnavailable, queue_unavailable)
    app.register_error_handler(EnqueueUnknown, enqueue_unknown)
    app.register_error_handler(HTTPException, http_error)
    return app


def invalid_job(error: InvalidJob) -> Answer:
    return {"errors": error.errors}, 422, {}


def idempotency_conflict(error: IdempotencyConflict) -> Answer:
    return {"error": KEY_IN_USE, "fields": error.fields}, 409, {}


def job_not_found(_: JobNotFound) -> Answer:
    return {"error": "There is no message with this id."}, 404, {}


def queue_unavailable(error: QueueUnavailable) -> Answer:
    # Log the details for the operator. The client only gets the time to try again.
    current_app.logger.warning("%s", error)
    return (
        {"error": "The queue is not available. Try again soon."},
        503,
        {"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def enqueue_unknown(error: EnqueueUnknown) -> Answer:
    _, status, headers = queue_unavailable(error)
    answer = {
        "error": "Whether the message was enqueued is not known. Try again with the same "
        "Idempotency-Key: that makes one message. Without a key, look first whether there is "
        "a message with this job_id.",
        "job_id": error.job_ids[0],
    }
    return answer, status, headers


def http_error(error: HTTPException) -> Answer:
    """Return Flask's own errors, such as for a body that is not JSON, as JSON."""
    return {"error": error.description}, error.code or 500, {}
