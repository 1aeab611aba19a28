"""A FastAPI app that enqueues messages and shows their state.

    fastapi dev examples/fastapi_app.py

It uses the asyncio producer, so that a hanging Redis does not block the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, Header, Request, Response, status
from fastapi.responses import JSONResponse
from harasocial_dispatch.producer import (
    EnqueueUnknown,
    IdempotencyConflict,
    InvalidJob,
    JobNotFound,
    QueueUnavailable,
    State,
)
from harasocial_dispatch.producer.aio import AsyncProducer
from pydantic import BaseModel

KEY_IN_USE = "This Idempotency-Key belongs to another message. Use another key for another message."
#: The `Retry-After` for clients if Redis is not available.
RETRY_AFTER_SECONDS = 5
EXAMPLE = {
    "recipient": {"id": "2560816460648749"},
    "message": {
        "payload_id": "__hrf_f_63072efd8d1cc15d16c3848e_s_4d12c525111725943cdbf556bd57687d"
    },
    "page_id": "500725830264749",
    "metadata": "order 1001",
}

logger = logging.getLogger(__name__)


class Accepted(BaseModel):
    job_id: str


class Message(BaseModel):
    state: State
    error_code: str | None
    error_message: str | None


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, AsyncProducer]]:
    # Read the settings here, so that an invalid setting stops the start and not the first request.
    async with AsyncProducer() as producer:
        yield {"producer": producer}


async def get_producer(request: Request) -> AsyncProducer:
    producer: AsyncProducer = request.state.producer
    return producer


TheProducer = Annotated[AsyncProducer, Depends(get_producer)]
# The package validates the body, so that the rules are in one place.
MessageBody = Annotated[Any, Body(examples=[EXAMPLE])]

app = FastAPI(title="Messages", lifespan=lifespan)


@app.post("/messages", status_code=status.HTTP_202_ACCEPTED)
async def send_message(
    body: MessageBody,
    producer: TheProducer,
    request: Request,
    response: Response,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> Accepted:
    job_id = await producer.enqueue(body, idempotency_key=idempotency_key)
    response.headers["Location"] = request.app.url_path_for("show_message", job_id=job_id)
    return Accepted(job_id=job_id)


@app.get("/messages/{job_id}")
async def show_message(job_id: str, producer: TheProducer) -> Message:
    job = await producer.get_job(job_id)
    return Message(state=job.state, error_code=job.error_code, error_message=job.error_message)


@app.exception_handler(InvalidJob)
async def invalid_job(_: Request, error: InvalidJob) -> JSONResponse:
    """Return the errors in FastAPI's own format: a list of locations and messages."""
    detail = [
        {"type": "value_error", "loc": location(path), "msg": text}
        for path, texts in error.errors.items()
        for text in texts
    ]
    return JSONResponse({"detail": detail}, status_code=422)


def location(path: str) -> list[str]:
    if path == "idempotency_key":
        return ["header", "idempotency-key"]
    return ["body"] if path == "job" else ["body", *path.split(".")]


@app.exception_handler(IdempotencyConflict)
async def idempotency_conflict(_: Request, error: IdempotencyConflict) -> JSONResponse:
    return JSONResponse({"detail": KEY_IN_USE, "fields": error.fields}, status_code=409)


@app.exception_handler(JobNotFound)
async def job_not_found(_: Request, error: JobNotFound) -> JSONResponse:
    return JSONResponse({"detail": "There is no message with this id."}, status_code=404)


@app.exception_handler(QueueUnavailable)
async def queue_unavailable(_: Request, error: QueueUnavailable) -> JSONResponse:
    return unavailable(error, {"detail": "The queue is not available. Try again soon."})


@app.exception_handler(EnqueueUnknown)
async def enqueue_unknown(_: Request, error: EnqueueUnknown) -> JSONResponse:
    answer = {
        "detail": "Whether the message was enqueued is not known. Try again with the same "
        "Idempotency-Key: that makes one message. Without a key, look first whether there is "
        "a message with this job_id.",
        "job_id": error.job_ids[0],
    }
    return unavailable(error, answer)


def unavailable(error: QueueUnavailable, answer: dict[str, str]) -> JSONResponse:
    # Log the details for the operator. The client only gets the time to try again.
    logger.warning("%s", error)
    return JSONResponse(answer, status_code=503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
