"""Reading the ledger: jobs, counts and lanes. `Reader` is the way in."""

from .counts import Counts
from .cursor import Cursor
from .failed_jobs import JobPage
from .index_page import IdPage
from .job_filter import MAX_VALUES, JobFilter
from .pauses import ALL_PAGES, MANUAL, PageRate, Pause
from .reader import JobStatus, Reader
from .waiting import Backlog

__all__ = [
    "ALL_PAGES",
    "MANUAL",
    "MAX_VALUES",
    "Backlog",
    "Counts",
    "Cursor",
    "IdPage",
    "JobFilter",
    "JobPage",
    "JobStatus",
    "PageRate",
    "Pause",
    "Reader",
]
