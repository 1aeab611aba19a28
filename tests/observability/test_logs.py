"""The worker's log: text or JSON, the same facts in each line, and nothing personal in any."""

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
from support.scrape import RECIPIENT, Day

PAGE = "500725830264749"
PAYLOAD = "__hrf_f_63072efd8d1cc15d16c3848e_s_4d12c525111725943cdbf556bd57687d"
FACTS = {
    "action": "job_failed",
    "job_id": "1f0c",
    "page_id": "500725830264749",
    "error_code": "10/2018278",
}


def lines_of(log: str) -> list[dict[str, Any]]:
    """Return the log's records; what Celery prints before there is a log begins with no brace."""
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


def test_as_json_every_line_is_an_object_with_the_facts(day: Day) -> None:
    """Ours say what happened to which job and why; Celery's own lines are JSON as well."""
    records = lines_of(day.worker.log())
    assert all({"time", "level", "logger", "process", "message"} <= set(line) for line in records)
    assert any(line["logger"].startswith("celery.") for line in records)

    of_jobs = {line["job_id"]: line for line in records if "job_id" in line}
    for job_id in day.jobs["failed"]:
        assert of_jobs[job_id]["action"] == "job_failed"
        assert of_jobs[job_id]["error_code"] in ("10/2018278", "http_401", "expired")
        assert of_jobs[job_id]["page_id"].isdigit()
    actions = {line["action"] for line in records if line.get("error_code") == "http_503"}
    assert actions == {"job_retrying"}


def test_as_json_nothing_of_ours_comes_in_another_form(day: Day) -> None:
    """No banner; Celery's warning about running as root, before there is a log, is all."""
    others = [line for line in day.worker.log().splitlines() if line and line[0] != "{"]
    allowed = ("SecurityWarning", "superuser", "recommended", "--uid", "uid=", "_warn_or_raise")
    assert [line for line in others if not any(words in line for words in allowed)] == []


@pytest.mark.parametrize("secret", [DEFAULT_TOKEN, RECIPIENT, PAYLOAD])
def test_neither_token_nor_person_nor_payload_is_logged(day: Day, secret: str) -> None:
    """Not even by Celery and urllib3 at the level DEBUG."""
    log = day.worker.log()
    assert '"level": "DEBUG"' in log
    assert secret not in log


def test_what_becomes_of_a_page_is_one_line_each(
    producer: Producer, start_worker: StartWorker
) -> None:
    """Restricted by a reply; paused, resumed and given a rate by an operator."""
    worker = start_worker("--pool", "solo", "--loglevel", "INFO", LOG_FORMAT="json")
    job_ids = [producer.enqueue(body("sandbox:code:368")) for _ in range(3)]

    def page_lines() -> list[dict[str, Any]]:
        return [line for line in lines_of(worker.log()) if line.get("reason")]

    (restricted,) = eventually(page_lines)
    names = ("action", "level", "page_id", "reason", "error_code")
    assert [restricted[name] for name in names] == [
        "page_restricted", "WARNING", PAGE, "restricted", "368",
    ]  # fmt: skip
    assert 1 <= restricted["waiting_jobs"] <= 3, "those not in flight"
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
    """Real processes: few lines, and a count of the others also when the flood has ended."""
    worker = start_worker("--concurrency", "1", LOG_FORMAT="json", PAGE_RATE=0)
    job_ids = producer.enqueue_many([body("sandbox:code:10/2018278") for _ in range(300)]).accepted
    wait_until_ended(producer, job_ids)

    def of_jobs() -> list[dict[str, Any]]:
        return [line for line in lines_of(worker.log()) if line.get("action") == "job_failed"]

    eventually(lambda: sum(line.get("count", 1) for line in of_jobs()) == len(job_ids))
    assert len(of_jobs()) <= 60
    assert all(line["page_id"] == PAGE for line in of_jobs())


def test_as_text_a_line_has_the_facts_too(producer: Producer, start_worker: StartWorker) -> None:
    """The default: words for people, with what they leave out behind them."""
    worker = start_worker("--pool", "solo")
    job_id = producer.enqueue(body("sandbox:code:10/2018278"))
    wait_until_ended(producer, [job_id])
    (line,) = [line for line in worker.log().splitlines() if "10/2018278" in line]
    assert "WARNING/MainProcess]" in line
    assert line.endswith(
        f"job {job_id} of page 500725830264749: failed (10/2018278) [action=job_failed]"
    )
    assert RECIPIENT not in worker.log()
    # Celery's banner is for people.
    assert ". harasocial.dispatch" in worker.log()


def logged(log_format: str, message: str, *args: object, **options: Any) -> str:
    """Return what a logger set up by Celery, and then by us, writes for one record."""
    stream = io.StringIO()
    logger = logging.Logger("harasocial_dispatch.worker.observe.recorded")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(ColorFormatter("%(levelname)s %(message)s", use_color=False))
    logger.addHandler(handler)
    # Celery announces one logger twice, under two names.
    for _ in range(2):
        format_logs(logger, log_format)
    logger.warning(message, *args, **options)
    return stream.getvalue()


def test_text_repeats_nothing() -> None:
    """What the message says already is not said again; a record without facts stays as it is."""
    assert logged("text", "plain %s", "words") == "WARNING plain words\n"
    assert (
        logged("text", "job %s failed", "1f0c", extra=FACTS)
        == "WARNING job 1f0c failed [action=job_failed page_id=500725830264749 "
        "error_code=10/2018278]\n"
    )


def test_json_holds_whatever_is_logged_on_one_line() -> None:
    """Line breaks and escape sequences cannot make a second line, or act on a terminal."""
    text = logged("json", "a\nb \x1b[2J %s", "é\u2028", extra={**FACTS, "page_id": None})
    (line,) = text.splitlines()
    assert line.isascii()
    assert line.isprintable()
    record = json.loads(line)
    assert record["message"] == "a\nb \x1b[2J é\u2028"
    assert {name: record[name] for name in FACTS if name in record} == {
        name: fact for name, fact in FACTS.items() if name != "page_id"
    }


def test_json_tells_of_exceptions() -> None:
    """With the traceback, in the same line."""
    try:
        raise ValueError("oops")
    except ValueError:
        record = json.loads(logged("json", "failed", exc_info=sys.exc_info()))
    assert "ValueError: oops" in record["exception"]
    assert "test_logs.py" in record["exception"]


def test_ids_put_into_redis_by_other_hands_do_not_act_in_the_log() -> None:
    """A job's very id may hold line ends and escape sequences; a line stays one harmless line."""
    record = logging.LogRecord(
        "worker", logging.WARNING, __file__, 1, "job %s", ("x\n[INFO] forged\x1b[31m",), None
    )
    record.job_id = "x\n[INFO] forged\x1b[31m"

    line = TextFormatter(logging.Formatter("%(message)s")).format(record)

    assert line.isprintable()
