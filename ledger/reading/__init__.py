"""Read the ledger: jobs, counts and lanes. `Reader` is the public class."""

from __future__ import annotations

from .campaigns import Campaign, CampaignPage, Hold, WatchedCampaign
from .counts import Counts, Minute
from .cursor import Cursor
from .failed_jobs import JobPage
from .index_page import IdPage
from .job_filter import MAX_VALUES, JobFilter
from .pauses import ALL_PAGES, APP_THROTTLED, MANUAL, PageRate, Pause
from .reader import JobStatus, Reader
from .waiting import Backlog

__all__ = [
    "ALL_PAGES",
    "APP_THROTTLED",
    "MANUAL",
    "MAX_VALUES",
    "Backlog",
    "Campaign",
    "CampaignPage",
    "Counts",
    "Cursor",
    "Hold",
    "IdPage",
    "JobFilter",
    "JobPage",
    "JobStatus",
    "Minute",
    "PageRate",
    "Pause",
    "Reader",
    "WatchedCampaign",
]
