"""Read the ledger: jobs, counts and lanes. `Reader` is the public class."""

from __future__ import annotations

from .campaigns import Campaign, CampaignPage, Hold, WatchedCampaign
from .counts import Counts, Minute
from .cursor import Cursor
from .index_page import JobPage
from .job_filter import MAX_VALUES, JobFilter
from .pauses import ALL_PAGES, APP_THROTTLED, MANUAL, PageRate, Pause
from .reader import Reader

__all__ = [
    "ALL_PAGES",
    "APP_THROTTLED",
    "MANUAL",
    "MAX_VALUES",
    "Campaign",
    "CampaignPage",
    "Counts",
    "Cursor",
    "Hold",
    "JobFilter",
    "JobPage",
    "Minute",
    "PageRate",
    "Pause",
    "Reader",
    "WatchedCampaign",
]
