"""`replay`: queue failed jobs again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from ...ledger import JobFilter
from ...producer.bulk_replay import Replay, ReplayPlan
from ...schemas import QueueUnavailable, Settings, State
from ...schemas.error_codes import ReplayKind
from ...schemas.language import Language
from ..input.environment import open_ledger
from ..input.job_ids import print_refused, states_as_json, whole_ids
from ..input.options import check_can_confirm, confirm, examples, filters, json_option, yes_option
from ..output.printing import is_terminal, jobs, print_json, print_notice, progress_bar, shown

#: Maximum number of error codes in the text output; --json prints all of them.
_MAX_CAUSES = 20


@click.command(
    epilog=examples(
        "replay 1f0c…",
        "replay --error-code http_502 --error-code http_503 --since 1d --dry-run",
        "replay --passing --since 1d --rate 20",
        "replay --fixable --page-id 500725830264749",
        "replay --all",
    )
)
@click.argument("job_ids", metavar="[ID]...", nargs=-1)
@filters()
@click.option("--passing", is_flag=True, help="Only jobs that failed for a temporary cause.")
@click.option(
    "--fixable", is_flag=True, help="Only jobs whose cause must be fixed first, such as a token."
)
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
    help="Maximum number of jobs to replay per second.  [default: no limit]",
)
@yes_option
@json_option
@click.pass_context
def replay(
    ctx: click.Context,
    *,
    job_ids: tuple[str, ...],
    wanted: JobFilter,
    passing: bool,
    fixable: bool,
    every: bool,
    dry_run: bool,
    rate: float | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Queue failed jobs again, to be sent.

    Each job gets the full number of attempts and a new deadline. Select jobs by ID (or its
    beginning, 8 characters or more), by filters (including --passing and --fixable), or with --all.
    Shows why the jobs failed, what to do, and which jobs should not be replayed. A sent job is
    never sent again.
    """
    kinds = [
        kind
        for kind, is_wanted in ((ReplayKind.PASSING, passing), (ReplayKind.FIXABLE, fixable))
        if is_wanted
    ]
    if bool(job_ids) + bool(kinds or not wanted.is_empty) + every != 1:
        raise click.UsageError(
            "Select jobs either by ID, by --passing, --fixable, --error-code, --page-id, "
            "--campaign, --since and --until, or with --all."
        )
    check_can_confirm(given=bool(job_ids) or yes or dry_run)
    settings = Settings.from_environment()
    with open_ledger(settings) as ledger:
        named = whole_ids(ledger.reader.find_id, job_ids) if job_ids else None
        replay = Replay(ledger, job_ids=named, wanted=wanted, kinds=kinds, via="cli")
        plan = replay.plan()
        if not (job_ids or plan.total):
            print_notice("no failed jobs found")
        if dry_run:
            _print_dry_run(plan, settings.language, as_json)
            return
        if not as_json:
            for line in _plan_lines(plan, settings.language):
                print_notice(line)
        refused = dict(plan.refused)
        if plan.total and not (yes or _needs_no_answer(plan, job_ids)):
            confirm(f"Send {jobs(plan.total)} again?", "replayed")
        _run(replay, plan, refused, rate, as_json)
    # If the jobs were selected by a filter, a job that another client replayed is not an error.
    if job_ids and refused:
        ctx.exit(1)


def _needs_no_answer(plan: ReplayPlan, job_ids: tuple[str, ...]) -> bool:
    """Return whether no confirmation is needed: jobs selected by id, without warnings."""
    return bool(job_ids) and not (plan.warnings("en") and sys.stdin.isatty())


def _plan_as_json(plan: ReplayPlan) -> dict[str, Any]:
    return {
        "by_replay_kind": {group.kind.value: group.count for group in plan.kinds},
        "by_error_code": [cause.as_json() for cause in plan.causes],
        "warnings": plan.warnings("en"),
    }


def _print_dry_run(plan: ReplayPlan, language: Language, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "would_replay": plan.total,
                **_plan_as_json(plan),
                "not_replayed": states_as_json(plan.refused),
            }
        )
        return
    print_refused(plan.refused, "cannot be replayed")
    for line in _plan_lines(plan, language):
        click.echo(line)
    click.echo(f"{jobs(plan.total)} would be replayed")


def _run(
    replay: Replay,
    plan: ReplayPlan,
    refused: dict[str, State | None],
    rate: float | None,
    as_json: bool,
) -> None:
    """Replay the jobs at the rate and print their ids; add the refused jobs to `refused`."""
    replayed: list[str] = []
    try:
        with progress_bar(plan.total, "jobs") as advance:
            for batch in replay.run(rate):
                replayed += batch.job_ids
                if not as_json and not is_terminal():
                    for job_id in batch.job_ids:
                        click.echo(shown(job_id))
                # Another client has replayed the other jobs.
                refused |= batch.refused
                advance(len(replayed), len(replayed))
    except (QueueUnavailable, KeyboardInterrupt):
        print_notice(
            f"stopped: at least {len(replayed)} of {plan.total} were replayed; "
            "run the same command to replay the rest"
        )
        raise
    finally:
        if as_json:
            print_json(
                {
                    "replayed": replayed,
                    **_plan_as_json(plan),
                    "not_replayed": states_as_json(refused),
                }
            )
        elif is_terminal():
            click.echo(f"replayed {jobs(len(replayed))}")
    if not as_json:
        print_refused(refused, "cannot be replayed")


def _plan_lines(plan: ReplayPlan, language: Language) -> Iterator[str]:
    """Yield the causes, grouped by whether a replay helps, and the warnings, as text lines."""
    left = _MAX_CAUSES
    for group in plan.kinds:
        yield f"{group.name(language)}: {jobs(group.count)}"
        for cause in group.causes[:left]:
            meaning, what_to_do = cause.explain(language)
            yield f"  {jobs(cause.count)} failed with {shown(cause.error_code)}: {meaning}"
            yield f"    what to do: {what_to_do}"
        left -= min(left, len(group.causes))
    if len(plan.causes) > _MAX_CAUSES:
        yield f"and {len(plan.causes) - _MAX_CAUSES} more error codes (--json has all)"
    for warning in plan.warnings(language):
        yield f"warning: {warning}"
