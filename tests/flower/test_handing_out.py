"""Exports, metrics, and error pages while Redis is not reachable, over HTTP."""

from __future__ import annotations

import codecs
import csv
import io
import json

import pytest
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.schemas import Settings, parse_new_job
from harasocial_dispatch.schemas.export import unescape_cell
from prometheus_client.parser import text_string_to_metric_families
from support.flower_harness import (
    FlowerHarness,
    StartFlower,
    claim_job,
    fail_job,
    job_ids,
    new_page_id,
    text_of,
)
from support.harness import body, eventually


def test_an_export_has_every_job_of_the_filter(harness: FlowerHarness) -> None:
    """Exports in CSV and JSON lines are complete, also if they need several reads."""
    page_id = new_page_id()
    failed = [harness.fail(page_id=page_id, metadata=f"order {n}") for n in range(520)]
    harness.fail(page_id=new_page_id())
    answer = harness.flower.get(f"/failures/export.csv?page_id={page_id}")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert answer.content.startswith(codecs.BOM_UTF8)
    assert len(rows) == 520
    assert {row["job_id"]: row["metadata"] for row in rows} == {
        job_id: f"order {number}" for number, job_id in enumerate(failed)
    }
    assert {row["recipient_id"] for row in rows} == {"'2560816460648749"}
    assert all(row["meaning"] and row["what_to_do"] for row in rows)
    answer = harness.flower.get(f"/failures/export.jsonl?page_id={page_id}&text=order+51")
    found = [json.loads(line) for line in answer.text.splitlines()]
    expected = {failed[number] for number in (*range(510, 520), 51)}
    assert {job["job_id"] for job in found} == expected
    assert found[0]["attempts"][0]["duration_ms"] == 250


@pytest.mark.parametrize("metadata", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "＝1+1"])
def test_a_spreadsheet_reads_no_cell_as_a_formula(harness: FlowerHarness, metadata: str) -> None:
    """Metadata can contain formulas, because it comes from the web app's users."""
    page_id = new_page_id()
    harness.fail(page_id=page_id, metadata=metadata, error_message=metadata)
    content = harness.flower.get(f"/failures/export.csv?page_id={page_id}").content
    (row,) = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    for cell in (row["metadata"], row["error_message"]):
        assert cell.startswith("'")
        assert unescape_cell(cell) == metadata


def test_metrics_of_the_ledger_need_the_login(harness: FlowerHarness) -> None:
    """Flower's metrics need no login. Our metrics have page ids and need it."""
    page_id = new_page_id()
    harness.fail(page_id=page_id, error_code="77/77")
    new = parse_new_job(body(page_id=page_id))
    harness.ledger.enqueue([new, new])
    text = harness.flower.get("/metrics").text
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["harasocial_ledger_up",] == 1
    assert samples["harasocial_failed_jobs", "77/77"] == 1
    assert samples["harasocial_waiting_jobs", page_id] == 2
    assert samples["harasocial_jobs", "failed"] >= 1
    assert samples["harasocial_oldest_waiting_seconds",] >= 0
    assert "python_info" in text
    anonymous = harness.flower.get("/metrics", auth=None)
    assert anonymous.status_code == 200
    assert "python_info" in anonymous.text
    assert "harasocial_failed_jobs" not in anonymous.text
    assert "basic_auth" in anonymous.text
    claim_job(harness.ledger, harness.ledger.enqueue([new]).job_ids[0])


def test_pages_report_an_outage_of_redis_and_recover(
    start_flower: StartFlower,
) -> None:
    """Pages have status 503, Retry-After and a message. The metrics report the outage."""
    with EmbeddedValkey(appendonly="yes") as own:
        settings = Settings(redis_url=own.url, page_rate=0.0)
        ledger = Ledger(settings)
        flower = start_flower(REDIS_URL=own.url, NAMESPACE=settings.namespace)
        job_id = fail_job(ledger, page_id=new_page_id())
        own.kill()
        for path in ("/failures", f"/failures/{job_id}", "/failures/export.csv"):
            page = flower.get(path)
            assert page.status_code == 503
            assert page.headers["Retry-After"] == "5"
            assert "cannot be reached" in text_of(page)
        assert "harasocial_ledger_up 0.0" in flower.get("/metrics").text
        own.restart()
        eventually(lambda: flower.get("/failures").status_code == 200, what="the page")
        assert job_ids(flower.get("/failures")) == [job_id]
        # and SIGTERM stops Flower, even without a reachable broker
        own.kill()
        flower.stop()
