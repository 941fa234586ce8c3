"""Reports: what a run did, as a page and pictures, and the small record from which they are drawn."""

from deqir.report.files import check_drawing, report_folder, saved_runs, write_report
from deqir.report.overlays import Overlays
from deqir.report.recorder import Recorder
from deqir.report.run import RunRecord, read_run, write_run

__all__ = [
    "Overlays",
    "Recorder",
    "RunRecord",
    "check_drawing",
    "read_run",
    "report_folder",
    "saved_runs",
    "write_report",
    "write_run",
]
