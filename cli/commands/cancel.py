"""`cancel`: cancel waiting jobs, selected by id or by a filter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import click

from ...ledger import CANCELABLE, AuditEntry, JobFilter, Ledger
from ...producer.cancellation import Cancellation, CancelReport
from ...schemas import QueueUnavailable, Settings, State
from ..input.environment import open_ledger
from ..input.job_ids import print_refused, states_as_json, whole_ids
from ..input.options import check_can_confirm, confirm, examples, filters, json_option, yes_option
from ..output.printing import is_terminal, jobs, print_json, print_notice, progress_bar, shown

#: Maximum number of values of each kind in the text breakdown; --json prints all of them.
_MAX_SHOWN = 10
#: Maximum number of job ids that one script call cancels.
_IDS_AT_ONCE = 100


@click.command(
    epilog=examples(
        "cancel 1f0c…",
        "cancel --page-id 500725830264749 --dry-run",
        "cancel --payload-id __hrf_f_6307… --since 2h --yes",
        "cancel --state scheduled --page-id 500725830264749",
    )
)
@click.argument("job_ids", metavar="[ID]...", nargs=-1)
@filters(with_state=True)
@click.option(
    "--payload-id",
    "payload_ids",
    metavar="P",
    multiple=True,
    help="Only jobs that send this payload. Can be repeated.",
)
@click.option(
    "--dry-run", is_flag=True, help="Show what would be canceled, without canceling anything."
)
@yes_option
@json_option
@click.pass_context
def cancel(
    ctx: click.Context,
    *,
    job_ids: tuple[str, ...],
    wanted: JobFilter,
    payload_ids: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Cancel jobs that are scheduled, queued or retrying.

    Select jobs by ID (or its beginning, 8 characters or more) or by filters. Here, --since and
    --until bound when a job was enqueued. Calls in flight end normally. If a job selected by
    ID is being sent, or has ended, the exit status is 1. A cancellation by filters can be
    interrupted; run the same command again to cancel the rest.
    """
    by_filter = bool(payload_ids) or not wanted.is_empty
    if bool(job_ids) == by_filter:
        raise click.UsageError(
            "Select jobs either by ID or by --page-id, --campaign, --payload-id, --state, "
            "--error-code, --since and --until."
        )
    check_can_confirm(given=bool(job_ids) or yes or dry_run)
    with open_ledger(Settings.from_environment()) as ledger:
        if job_ids:
            if not _cancel_named(ledger, job_ids, dry_run=dry_run, as_json=as_json):
                ctx.exit(1)
            return
        try:
            cancellation = Cancellation(ledger, wanted, payload_ids=payload_ids, via="cli")
        except ValueError as error:
            raise click.UsageError(f"{error}.") from None
        _cancel_matching(cancellation, dry_run=dry_run, yes=yes, as_json=as_json)


def _cancel_named(ledger: Ledger, texts: tuple[str, ...], *, dry_run: bool, as_json: bool) -> bool:
    """Cancel jobs by id; return whether all of them were (or could be) canceled."""
    job_ids = whole_ids(ledger.reader.find_id, texts)
    before = ledger.reader.statuses(job_ids)
    states = {job_id: before[job_id].state if job_id in before else None for job_id in job_ids}
    done: tuple[State, ...] = CANCELABLE
    if not dry_run:
        audit = AuditEntry(action="cancel", via="cli", filter={"job_id": job_ids[:_MAX_SHOWN]})
        for first in range(0, len(job_ids), _IDS_AT_ONCE):
            some = job_ids[first : first + _IDS_AT_ONCE]
            states |= zip(some, ledger.cancel(some, audit), strict=True)
        done = (State.CANCELLED,)
    canceled = [job_id for job_id, state in states.items() if state in done]
    refused = {job_id: state for job_id, state in states.items() if state not in done}
    if as_json:
        canceled_as_json = {"would_cancel": len(canceled)} if dry_run else {"cancelled": canceled}
        print_json({**canceled_as_json, "not_cancelled": states_as_json(refused)})
        return not refused
    for job_id in canceled:
        if dry_run:
            click.echo(f"{job_id} would be canceled")
        else:
            click.echo(f"canceled {job_id}" if is_terminal() else job_id)
    print_refused(refused, "cannot be canceled")
    return not refused


def _cancel_matching(
    cancellation: Cancellation, *, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Cancel jobs that match a filter, after a confirmation."""
    plan = _plan(cancellation)
    if not plan.count:
        print_notice("no matching waiting jobs found; nothing to cancel")
    if dry_run:
        _print_plan(plan, as_json)
        return
    if not as_json:
        for line in _breakdown(plan):
            print_notice(line)
    if plan.count and not yes:
        confirm(f"Cancel {jobs(plan.count)}?", "canceled")
    _run(cancellation, plan, as_json)


def _plan(cancellation: Cancellation) -> CancelReport:
    plan = CancelReport()
    with progress_bar(None, "jobs found") as advance:
        for plan in cancellation.plan():
            advance(plan.count, plan.count)
    return plan


def _print_plan(plan: CancelReport, as_json: bool) -> None:
    if as_json:
        print_json({"would_cancel": plan.count, **_facts(plan)})
        return
    for line in _breakdown(plan):
        click.echo(line)
    click.echo(f"{jobs(plan.count)} would be canceled")


def _run(cancellation: Cancellation, plan: CancelReport, as_json: bool) -> None:
    report = CancelReport()
    try:
        if plan.count:
            with progress_bar(plan.count, "jobs") as advance:
                for report in cancellation.run():
                    advance(report.count, report.count)
    except (QueueUnavailable, KeyboardInterrupt):
        print_notice(
            f"stopped: at least {report.count} of {plan.count} were canceled; "
            "run the same command to cancel the rest"
        )
        raise
    finally:
        if as_json:
            print_json({"cancelled_count": report.count, **_facts(report)})
        elif plan.count:
            click.echo(f"canceled {jobs(report.count)}")
    if report.in_flight:
        print_notice(
            f"{jobs(report.in_flight)} that match are in flight and end normally; if one is "
            "retried later, the same command cancels it"
        )


def _facts(report: CancelReport) -> dict[str, Any]:
    counts = {f"by_{name}": dict(each.most_common()) for name, each in report.counters.items()}
    return {**counts, "in_flight": report.in_flight}


def _breakdown(report: CancelReport) -> Iterator[str]:
    """Yield what would be canceled, as text lines."""
    for title, counter in report.counters.items():
        yield from _lines(title, counter)
    if report.in_flight:
        yield f"{jobs(report.in_flight)} more that match are in flight; these calls end normally"


def _lines(title: str, counter: Counter[str]) -> Iterator[str]:
    for name, count in counter.most_common(_MAX_SHOWN):
        yield f"{title} {shown(name)}: {jobs(count)}"
    if len(counter) > _MAX_SHOWN:
        yield f"and {len(counter) - _MAX_SHOWN} more {title}s (--json has all)"
