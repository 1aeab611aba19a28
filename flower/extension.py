"""Extend Flower with our pages, metrics, safe defaults and a check before it listens.

Flower keeps a limited number of tasks in memory. The Failures pages read the ledger. Therefore
they show the same after a restart, as long as failed jobs are kept.

Flower 2.2 has no extension point for this. Its command creates an application from two lists in
`urls`, the class `command.Flower` and global options, which exist before the command runs. Celery
imports the application's modules after it has read the options and before Flower listens, and sends
a signal. Another minor release may differ, so setup.cfg allows only 2.2, and tests check each of
these assumptions.
"""

from __future__ import annotations

import sys
from typing import Any

from celery import Celery
from celery.signals import import_modules
from flower import command, urls
from flower.options import options
from tornado.web import StaticFileHandler, url

from ..schemas import Settings
from . import assets, safety
from .ending import end_in_time
from .pages.audit import AuditHandler
from .pages.campaigns import CampaignHandler, CampaignsHandler
from .pages.cancellations import CancellationHandler, CancellationsHandler
from .pages.export import ExportHandler
from .pages.failures import FailuresHandler
from .pages.job import JobHandler
from .pages.language import LanguageHandler
from .pages.metrics import MetricsHandler
from .pages.overview import HomeHandler, OverviewHandler
from .pages.replays import ReplayHandler, ReplaysHandler
from .pages.sender_pages import PageControlHandler, SenderPageHandler, SenderPagesHandler
from .pages.waiting import WaitingHandler
from .server import GuardedFlower
from .site import Site
from .template_loader import Templates

#: Columns of Flower's task list, with the values that identify a failed job.
_COLUMNS = "name,uuid,state,result,args,received,runtime,worker"


def extend(app: Celery, settings: Settings) -> None:
    """Add our pages, metrics and defaults to Flower, in this process.

    Call this once, before Flower reads its options. The user's options override our defaults.
    Before Flower listens, its options are checked. If they are unsafe, the process exits with
    status 2 and prints the reason.
    """
    site = Site.of(settings)
    _set_defaults(settings)
    urls.settings.update(
        template_loader=Templates(urls.settings["template_path"]),
        xsrf_cookies=True,
        xsrf_cookie_kwargs={"samesite": "Lax"},
    )
    urls.handlers[:] = _handlers(urls.handlers, site)
    command.Flower = GuardedFlower
    end_in_time()

    def check(sender: Any = None, **_: Any) -> None:
        if sender is app:
            _finish_options(site)

    import_modules.connect(check, weak=False)


def _set_defaults(settings: Settings) -> None:
    options.address = "127.0.0.1"
    options.tasks_columns = _COLUMNS
    # None means that the user has not set the option.
    options.read_only = None
    if settings.flower_basic_auth:
        options.basic_auth = [settings.flower_basic_auth]


def _finish_options(site: Site) -> None:
    reason = safety.refusal(
        address=options.address,
        unix_socket=options.unix_socket,
        credentials=options.basic_auth or [],
        has_other_login=bool(options.auth),
    )
    if reason:
        sys.stderr.write(f"Error: {reason}\n")
        raise SystemExit(2)
    # By default, Flower's controls of workers and tasks are off, and replays are on.
    site.read_only = options.read_only is True
    if options.read_only is None:
        options.read_only = True


def _handlers(flowers: list[Any], site: Site) -> list[Any]:
    """Return Flower's handlers together with ours."""
    shared = {"site": site}
    ours = [
        url(r"/", HomeHandler, shared, name="main"),
        url(r"/overview", OverviewHandler, shared, name="overview"),
        url(r"/overview/page", PageControlHandler, shared, name="page-control"),
        url(r"/campaigns", CampaignsHandler, shared, name="campaigns"),
        url(r"/campaigns/([A-Za-z0-9._-]+)", CampaignHandler, shared, name="campaign"),
        url(r"/failures", FailuresHandler, shared, name="failures"),
        url(r"/failures/", FailuresHandler, shared),
        url(r"/failures/export\.(csv|jsonl)", ExportHandler, shared, name="failures-export"),
        url(r"/failures/waiting", WaitingHandler, shared, name="waiting"),
        url(r"/failures/replays", ReplaysHandler, shared, name="replays"),
        url(r"/failures/replays/([0-9a-f]+)", ReplayHandler, shared, name="replay"),
        url(
            r"/failures/static/(.+)",
            StaticFileHandler,
            {"path": str(assets.FOLDER)},
            name="failures-asset",
        ),
        url(r"/failures/language", LanguageHandler, shared, name="failures-language"),
        url(r"/failures/(.+)", JobHandler, shared, name="failure"),
        url(r"/pages", SenderPagesHandler, shared, name="sender-pages"),
        url(r"/pages/([^/]+)", SenderPageHandler, shared, name="sender-page"),
        url(r"/cancellations", CancellationsHandler, shared, name="cancellations"),
        url(r"/cancellations/([0-9a-f]+)", CancellationHandler, shared, name="cancellation"),
        url(r"/audit", AuditHandler, shared, name="audit"),
        url(r"/metrics", MetricsHandler, shared, name="metrics"),
    ]
    # Tornado uses the first match, and Flower's last handler matches everything.
    return [*ours, *(each for each in flowers if getattr(each, "name", None) != "main")]
