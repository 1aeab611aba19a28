"""`replay`: queue failed jobs again."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import click

from ..ledger import JobFilter
from ..producer import Producer
from ..producer.producer import BATCH_SIZE
from ..schemas import JobNotFound, QueueUnavailable, Settings, State
from .causes import Cause, cause_lines, causes_of
from .connecting import open_ledger
from .job_ids import print_refused, states_as_json, whole_ids
from .options import examples, filters, json_option
from .printing import complain, is_terminal, print_json, progress_bar, shown


@click.command(
    epilog=examples(
        "replay 1f0c…",
        "replay --error-code http_502 --error-code http_503 --since 1d --dry-run",
        "replay --error-code 10/2018278 --since 1d --rate 20 --yes",
        "replay --all",
    )
)
@click.argument("job_ids", metavar="[ID]...", nargs=-1)
@filters()
@click.option("--all", "every", is_flag=True, help="Every failed job.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show how many jobs would be replayed and why they failed, without replaying them.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="Jobs a second at most.  [default: no limit]",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def replay(
    ctx: click.Context,
    *,
    job_ids: tuple[str, ...],
    wanted: JobFilter,
    every: bool,
    dry_run: bool,
    rate: float | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Queue failed jobs again, to be sent.

    They get all their attempts again, and a new deadline. Name them by ID (or its beginning, of 8
    characters or more), by filters, or take --all. Shows why they failed and what to do about it.
    A sent job is never sent again.
    """
    if bool(job_ids) + (not wanted.is_empty) + every != 1:
        raise click.UsageError(
            "Name jobs by ID, or by --error-code, --page-id, --since and --until, or take --all: "
            "one of the three."
        )
    if not (job_ids or yes or dry_run or sys.stdin.isatty()):
        raise click.UsageError("Nobody can be asked here, so --yes is required (or --dry-run).")
    settings = Settings.from_environment()
    with open_ledger(settings) as ledger:
        producer = Producer(settings, ledger=ledger)
        if job_ids:
            failed, refused = _failed_among(producer, job_ids)
        else:
            # All ids first: a job that fails again at once must not be found again.
            failed, refused = dict(ledger.failures.each_with_error_code(wanted)), {}
            if not failed:
                complain("no failed jobs found")
        causes = causes_of(failed.values())
        if dry_run:
            _print_dry_run(len(failed), causes, refused, as_json)
            return
        if not as_json:
            for line in cause_lines(causes):
                complain(line)
        if job_ids or not failed or yes or _confirmed(len(failed)):
            _replay(producer, list(failed), causes, refused, rate, as_json)
        else:
            complain("nothing was replayed")
            ctx.exit(1)
    # Of jobs that were found and not named, somebody else's replay is no failure of this one.
    if job_ids and refused:
        ctx.exit(1)


def _failed_among(
    producer: Producer, texts: Sequence[str]
) -> tuple[dict[str, str], dict[str, State | None]]:
    """Return failed jobs' ids and error codes, and each other's state (None: there is no job)."""
    failed: dict[str, str] = {}
    refused: dict[str, State | None] = {}
    for job_id in whole_ids(producer, texts):
        try:
            record = producer.get_job(job_id)
        except JobNotFound:
            refused[job_id] = None
            continue
        if record.state is State.FAILED:
            failed[job_id] = record.error_code or ""
        else:
            refused[job_id] = record.state
    return failed, refused


def _state(producer: Producer, job_id: str) -> State | None:
    try:
        return producer.get_job(job_id).state
    except JobNotFound:
        return None


def _print_dry_run(
    count: int, causes: Sequence[Cause], refused: dict[str, State | None], as_json: bool
) -> None:
    if as_json:
        print_json(
            {
                "would_replay": count,
                "by_error_code": [asdict(cause) for cause in causes],
                "not_replayed": states_as_json(refused),
            }
        )
        return
    print_refused(refused, "cannot be replayed")
    for line in cause_lines(causes):
        click.echo(line)
    click.echo(f"{_jobs(count)} would be replayed")


def _confirmed(count: int) -> bool:
    return click.confirm(f"Send {_jobs(count)} again?", err=True)


def _replay(
    producer: Producer,
    wanted: list[str],
    causes: Sequence[Cause],
    refused: dict[str, State | None],
    rate: float | None,
    as_json: bool,
) -> None:
    """Replay the jobs at the rate, and print which were; adds to `refused` those that were not."""
    replayed: list[str] = []
    try:
        with progress_bar(len(wanted), "jobs") as advance:
            for batch in _paced(wanted, rate):
                done = producer.replay_many(batch)
                replayed += done
                if not as_json and not is_terminal():
                    for job_id in done:
                        click.echo(shown(job_id))
                # Somebody else was quicker with the others.
                others = sorted(set(batch) - set(done))
                refused |= {job_id: _state(producer, job_id) for job_id in others}
                advance(len(replayed), len(replayed))
    except (QueueUnavailable, KeyboardInterrupt):
        complain(
            f"stopped: at least {len(replayed)} of {len(wanted)} were replayed; the same command "
            "goes on with the others"
        )
        raise
    finally:
        if as_json:
            print_json(
                {
                    "replayed": replayed,
                    "by_error_code": [asdict(cause) for cause in causes],
                    "not_replayed": states_as_json(refused),
                }
            )
        elif is_terminal():
            click.echo(f"replayed {_jobs(len(replayed))}")
    if not as_json:
        print_refused(refused, "cannot be replayed")


def _paced(ids: list[str], rate: float | None) -> Iterator[list[str]]:
    """Yield the ids in batches, each when its time has come: `rate` ids a second."""
    began = time.monotonic()
    # About ten batches a second are even enough.
    step = BATCH_SIZE if rate is None else min(BATCH_SIZE, max(1, math.floor(rate / 10)))
    for start in range(0, len(ids), step):
        if rate is not None:
            time.sleep(max(0.0, began + start / rate - time.monotonic()))
        yield ids[start : start + step]


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"
