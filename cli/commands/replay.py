"""`replay`: queue failed jobs again."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import click

from ...ledger import JobFilter
from ...producer.replay import Cause, Replay, ReplayPlan
from ...schemas import QueueUnavailable, Settings, State
from ..input.connection import open_ledger
from ..input.job_ids import print_refused, states_as_json, whole_ids
from ..input.options import examples, filters, json_option
from ..output.printing import is_terminal, print_json, print_notice, progress_bar, shown

#: Error codes that are shown to people; --json has them all.
_MAX_CAUSES = 20


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
        named = whole_ids(ledger.reader.find_id, job_ids) if job_ids else None
        replay = Replay(ledger, job_ids=named, wanted=wanted)
        plan = replay.plan()
        if not (job_ids or plan.total):
            print_notice("no failed jobs found")
        if dry_run:
            _print_dry_run(plan, as_json)
            return
        if not as_json:
            for line in _cause_lines(plan.causes):
                print_notice(line)
        refused = dict(plan.refused)
        if job_ids or not plan.total or yes or _confirmed(plan.total):
            _run(replay, plan, refused, rate, as_json)
        else:
            print_notice("nothing was replayed")
            ctx.exit(1)
    # Of jobs that were found and not named, another client's replay is no failure of this one.
    if job_ids and refused:
        ctx.exit(1)


def _print_dry_run(plan: ReplayPlan, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "would_replay": plan.total,
                "by_error_code": [asdict(cause) for cause in plan.causes],
                "not_replayed": states_as_json(plan.refused),
            }
        )
        return
    print_refused(plan.refused, "cannot be replayed")
    for line in _cause_lines(plan.causes):
        click.echo(line)
    click.echo(f"{_jobs(plan.total)} would be replayed")


def _confirmed(count: int) -> bool:
    return click.confirm(f"Send {_jobs(count)} again?", err=True)


def _run(
    replay: Replay,
    plan: ReplayPlan,
    refused: dict[str, State | None],
    rate: float | None,
    as_json: bool,
) -> None:
    """Replay the jobs at the rate, and print which were; adds to `refused` those that were not."""
    replayed: list[str] = []
    try:
        with progress_bar(plan.total, "jobs") as advance:
            for batch in replay.run(rate):
                replayed += batch.job_ids
                if not as_json and not is_terminal():
                    for job_id in batch.job_ids:
                        click.echo(shown(job_id))
                # Another client was quicker with the others.
                refused |= batch.refused
                advance(len(replayed), len(replayed))
    except (QueueUnavailable, KeyboardInterrupt):
        print_notice(
            f"stopped: at least {len(replayed)} of {plan.total} were replayed; the same command "
            "goes on with the others"
        )
        raise
    finally:
        if as_json:
            print_json(
                {
                    "replayed": replayed,
                    "by_error_code": [asdict(cause) for cause in plan.causes],
                    "not_replayed": states_as_json(refused),
                }
            )
        elif is_terminal():
            click.echo(f"replayed {_jobs(len(replayed))}")
    if not as_json:
        print_refused(refused, "cannot be replayed")


def _cause_lines(causes: Sequence[Cause]) -> Iterator[str]:
    """Yield the causes as text for people."""
    for cause in causes[:_MAX_CAUSES]:
        yield f"{_jobs(cause.count)} failed with {shown(cause.error_code)}: {cause.meaning}"
        yield f"  what to do: {cause.what_to_do}"
    if len(causes) > _MAX_CAUSES:
        yield f"and {len(causes) - _MAX_CAUSES} more error codes (--json has all)"


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"
