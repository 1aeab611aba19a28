"""The tree of errors: base classes, attributes, messages and pickling."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from harasocial_dispatch import schemas
from harasocial_dispatch.schemas import (
    AmbiguousJobId,
    CampaignCanceled,
    CampaignNotFound,
    DispatchError,
    EnqueueUnknown,
    IdempotencyConflict,
    InvalidJob,
    InvalidRequest,
    JobNotFound,
    QueueUnavailable,
    SettingsError,
)

ERRORS = [
    DispatchError("something"),
    SettingsError("HARASOCIAL_TOKEN must be …"),
    InvalidJob({"recipient.id": ["Must not be blank.", "Is bad."], "page_id": ["Is missing."]}),
    IdempotencyConflict(
        idempotency_key="k", job_id="c", fields=["page_id"], index=501, accepted=["a", "b"]
    ),
    InvalidRequest("rate: Must be a number."),
    CampaignNotFound("sale"),
    CampaignCanceled("sale"),
    JobNotFound("0123abcd"),
    AmbiguousJobId("0123abcd", ["0123abcd1", "0123abcd2"]),
    QueueUnavailable("Redis is away", accepted=["a", "b"]),
    EnqueueUnknown("the reply was lost", job_ids=["c"], accepted=["a", "b"]),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickling(error: DispatchError, protocol: int) -> None:
    """Celery and multiprocessing pickle errors."""
    found = pickle.loads(pickle.dumps(error, protocol))
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert vars(found) == vars(error)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_copying(error: DispatchError) -> None:
    """A copy has the same attributes."""
    assert vars(copy.deepcopy(error)) == vars(error)
    assert str(copy.copy(error)) == str(error)


@pytest.mark.parametrize(
    ("kind", "parents"),
    [
        (SettingsError, {DispatchError}),
        (InvalidJob, {DispatchError, ValueError}),
        (InvalidRequest, {DispatchError, ValueError}),
        (IdempotencyConflict, {DispatchError, ValueError}),
        (CampaignNotFound, {DispatchError, LookupError}),
        (CampaignCanceled, {DispatchError, ValueError}),
        (JobNotFound, {DispatchError, LookupError}),
        (AmbiguousJobId, {DispatchError, LookupError}),
        (QueueUnavailable, {DispatchError}),
        (EnqueueUnknown, {DispatchError, QueueUnavailable}),
    ],
)
def test_each_error_has_its_parents(kind: type[Exception], parents: set[type[Exception]]) -> None:
    """One handler can catch all errors. `SettingsError` is not a `ValueError`."""
    ours = {type(error) for error in ERRORS}
    assert {parent for parent in ours if issubclass(kind, parent)} - {kind} == parents & ours
    assert all(issubclass(kind, parent) for parent in parents)


def test_the_tree_has_every_error() -> None:
    """Every public error is in the tree."""
    kinds = {error for error in vars(schemas).values() if isinstance(error, type)}
    errors = {kind for kind in kinds if issubclass(kind, Exception)}
    assert errors == {type(error) for error in ERRORS}


def test_the_message_of_an_invalid_job_has_every_error() -> None:
    """The message is one line for a log. `errors` has the same content for programs."""
    error = InvalidJob({"recipient.id": ("Is blank.", "Is bad."), "page_id": ["Is missing."]})
    assert str(error) == "recipient.id: Is blank. Is bad.; page_id: Is missing."
    assert error.errors == {"recipient.id": ["Is blank.", "Is bad."], "page_id": ["Is missing."]}


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        (
            {"job_id": "1f0c", "fields": ["recipient.id"]},
            "idempotency key 'k' belongs to job 1f0c, which has another recipient.id; nothing was "
            "enqueued. Use another key for another message.",
        ),
        (
            {"job_id": None, "fields": ["page_id", "recipient.id", "metadata"]},
            "idempotency key 'k' belongs to an earlier row, which has another page_id, "
            "recipient.id and metadata; nothing was enqueued. Use another key for another message.",
        ),
        (
            {"job_id": "1f0c", "fields": ["metadata"], "accepted": ["a", "b"]},
            "idempotency key 'k' belongs to job 1f0c, which has another metadata; only 2 jobs "
            "before it were enqueued. Use another key for another message.",
        ),
    ],
)
def test_the_message_of_a_conflict_has_key_fields_and_result(
    attributes: dict[str, Any], text: str
) -> None:
    """The message is one line for a log."""
    assert str(IdempotencyConflict(idempotency_key="k", **attributes)) == text


def test_a_lost_reply_has_the_ids_of_its_jobs() -> None:
    """It has the ids of stored jobs, and of jobs that may be stored."""
    error = EnqueueUnknown("lost", job_ids=("c",), accepted=("a",))
    assert (error.job_ids, error.accepted) == (["c"], ["a"])
    assert EnqueueUnknown("lost").job_ids == []
    assert QueueUnavailable("away").accepted == []


def test_a_hostile_job_id_is_quoted() -> None:
    """Control characters in it have no effect in a terminal."""
    assert "\x1b" not in str(JobNotFound("\x1b[2J"))
