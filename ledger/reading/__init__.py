"""Reading the ledger: jobs, counts and lanes. `Reader` is the way in."""

from .counts import Counts
from .cursor import Cursor
from .failed_jobs import JobPage
from .index_page import IdPage
from .job_filter import MAX_VALUES, JobFilter
from .lanes import Pause
from .reader import JobStatus, Reader
from .waiting import Backlog

__all__ = [
    "MAX_VALUES",
    "Backlog",
    "Counts",
    "Cursor",
    "IdPage",
    "JobFilter",
    "JobPage",
    "JobStatus",
    "Pause",
    "Reader",
]
