"""The worker's log: text or JSON, with the same extra fields and without personal data."""

from __future__ import annotations

import io
import json
import logging
import sys
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery.utils.log import ColorFormatter
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import DEFAULT_TOKEN
from harasocial_dispatch.worker.observe.logs import TextFormatter, format_logs
from support.harness import StartWorker, body, eventually, wait_until_ended
from support.scrape import RECIPIENT, MixedTraffic

PAGE = "500725830264749"
PAYLOAD = "__hrf_f_63072efd8d1cc15d16c3848e_s_4d12c525111725943cdbf556bd57687d"
FACTS = {
    "action": "job_failed",
    "job_id": "1f0c",
    "page_id": "500725830264749",
    "error_code": "10/2018278",
}


def lines_of(log: str) -> list[dict[str, Any]]:
    """Return the log's records. Lines that Celery prints before are not JSON."""
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


def test_every_json_line_is_an_object_with_the_extra_fields(mixed_traffic: MixedTraffic) -> None:
    """Lines about a job have its id and the reason. Celery's lines are JSON too."""
    records = lines_of(mixed_traffic.worker.log())
    assert all({"time", "level", "logger", "process", "message"} <= set(line) for line in records)
    assert any(line["logger"].startswith("celery.") for line in records)

    of_jobs = {line["job_id"]: line for line in records if "job_id" in line}
    for job_id in mixed_traffic.jobs["failed"]:
        assert of_jobs[job_id]["action"] == "job_failed"
        assert of_jobs[job_id]["error_code"] in ("10/2018278", "http_401", "expired")
        assert of_jobs[job_id]["page_id"].isdigit()
    actions = {line["action"] for line in records if line.get("error_code") == "http_503"}
    assert actions == {"job_retrying"}


def test_with_json_every_line_of_this_package_is_json(mixed_traffic: MixedTraffic) -> None:
    """There is no banner. Only Celery's warning about root, before the log starts, is text."""
    others = [line for line in mixed_traffic.worker.log().splitlines() if line and line[0] != "{"]
    allowed = ("SecurityWarning", "superuser", "recommended", "--uid", "uid=", "_warn_or_raise")
    assert [line for line in others if not any(words in line for words in allowed)] == []


@pytest.mark.parametrize("secret", [DEFAULT_TOKEN, RECIPIENT, PAYLOAD])
def test_no_token_person_or_payload_is_logged(mixed_traffic: MixedTraffic, secret: str) -> None:
    """Celery and urllib3 do not log them either, at the level DEBUG."""
    log = mixed_traffic.worker.log()
    assert '"level": "DEBUG"' in log
    assert secret not in log


def test_each_change_of_a_page_is_one_line(producer: Producer, start_worker: StartWorker) -> None:
    """A reply restricts the page. An operator pauses it, resumes it, and sets its rate."""
    worker = start_worker("--pool", "solo", "--loglevel", "INFO", LOG_FORMAT="json")
    job_ids = [producer.enqueue(body("sandbox:code:368")) for _ in range(3)]

    def page_lines() -> list[dict[str, Any]]:
        return [line for line in lines_of(worker.log()) if line.get("reason")]

    (restricted,) = eventually(page_lines)
    names = ("action", "level", "page_id", "reason", "error_code")
    assert [restricted[name] for name in names] == [
        "page_restricted", "WARNING", PAGE, "restricted", "368",
    ]  # fmt: skip
    assert 1 <= restricted["waiting_jobs"] <= 3, "the jobs that are not in flight"
    at = datetime.fromisoformat(restricted["until"].rstrip("Z") + "+00:00")
    assert timedelta(minutes=29) < at - datetime.now(timezone.utc) < timedelta(minutes=31)
    assert f"page {PAGE} is restricted until {restricted['until']}" in restricted["message"]

    producer.pause_page(PAGE, reason="wrong price", for_seconds=3600, by="hoa@shop")
    producer.resume_page(PAGE, by="thao")
    producer.set_rate(PAGE, 20, 5, by="thao")
    eventually(lambda: len(page_lines()) == 4)
    lines = page_lines()[1:]
    assert [(line["action"], line["page_id"], line["waiting_jobs"]) for line in lines] == [
        ("page_paused", PAGE, 3),
        ("page_resumed", PAGE, 3),
        ("page_rate", PAGE, 3),
    ]
    paused = lines[0]
    assert paused["until"]
    assert paused["message"].startswith(f"page {PAGE}: pause by hoa@shop (python): wrong price")
    assert producer.get_job(job_ids[0]).attempt_count == 0


def test_a_flood_of_failures_is_summarized(producer: Producer, start_worker: StartWorker) -> None:
    """Real processes write few lines, and a summary even after the end of the flood."""
    worker = start_worker("--concurrency", "1", LOG_FORMAT="json", PAGE_RATE=0)
    job_ids = producer.enqueue_many([body("sandbox:code:10/2018278") for _ in range(300)]).accepted
    wait_until_ended(producer, job_ids)

    def of_jobs() -> list[dict[str, Any]]:
        return [line for line in lines_of(worker.log()) if line.get("action") == "job_failed"]

    eventually(lambda: sum(line.get("count", 1) for line in of_jobs()) == len(job_ids))
    first, last = (datetime.fromisoformat(of_jobs()[i]["time"].rstrip("Z")) for i in (0, -1))
    # At most ten lines in a second. The summary follows the last of them.
    assert len(of_jobs()) <= 10 * ((last - first).total_seconds() + 2)
    assert all(line["page_id"] == PAGE for line in of_jobs())


def test_a_text_line_has_the_extra_fields_too(
    producer: Producer, start_worker: StartWorker
) -> None:
    """The default format is the message, followed by the extra fields that it lacks."""
    worker = start_worker("--pool", "solo")
    job_id = producer.enqueue(body("sandbox:code:10/2018278"))
    wait_until_ended(producer, [job_id])
    (line,) = eventually(
        lambda: [line for line in worker.log().splitlines() if "10/2018278" in line],
        what="its line",
    )
    assert "WARNING/MainProcess]" in line
    assert line.endswith(
        f"job {job_id} of page 500725830264749: failed (10/2018278) [action=job_failed]"
    )
    assert RECIPIENT not in worker.log()
    # The text format has Celery's banner.
    assert ". harasocial.dispatch" in worker.log()


def logged(log_format: str, message: str, *args: object, **options: Any) -> str:
    """Return the output for a record of a logger that Celery, and then this package, set up."""
    stream = io.StringIO()
    logger = logging.Logger("harasocial_dispatch.worker.observe.recorded")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(ColorFormatter("%(levelname)s %(message)s", use_color=False))
    logger.addHandler(handler)
    # Celery sends a signal for the same logger twice, under two names.
    for _ in range(2):
        format_logs(logger, log_format)
    logger.warning(message, *args, **options)
    return stream.getvalue()


def test_a_text_line_does_not_repeat_the_message() -> None:
    """Fields in the message are not appended. A record without extra fields is not changed."""
    assert logged("text", "plain %s", "words") == "WARNING plain words\n"
    assert (
        logged("text", "job %s failed", "1f0c", extra=FACTS)
        == "WARNING job 1f0c failed [action=job_failed page_id=500725830264749 "
        "error_code=10/2018278]\n"
    )


def test_json_has_any_message_on_one_line() -> None:
    """Line breaks and escape sequences are escaped."""
    text = logged("json", "a\nb \x1b[2J %s", "é\u2028", extra={**FACTS, "page_id": None})
    (line,) = text.splitlines()
    assert line.isascii()
    assert line.isprintable()
    record = json.loads(line)
    assert record["message"] == "a\nb \x1b[2J é\u2028"
    assert {name: record[name] for name in FACTS if name in record} == {
        name: fact for name, fact in FACTS.items() if name != "page_id"
    }


def test_json_contains_exceptions() -> None:
    """The traceback is in the same line."""
    try:
        raise ValueError("oops")
    except ValueError:
        record = json.loads(logged("json", "failed", exc_info=sys.exc_info()))
    assert "ValueError: oops" in record["exception"]
    assert "test_logs.py" in record["exception"]


def test_job_ids_from_another_client_are_sanitized_in_the_log() -> None:
    """A job's id may contain line breaks and escape sequences. The line is still one safe line."""
    record = logging.LogRecord(
        "worker", logging.WARNING, __file__, 1, "job %s", ("x\n[INFO] forged\x1b[31m",), None
    )
    record.job_id = "x\n[INFO] forged\x1b[31m"

    line = TextFormatter(logging.Formatter("%(message)s")).format(record)

    assert line.isprintable()
