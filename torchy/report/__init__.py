"""What happened, as plain data: traces, kernels and events of one session.

A session tells a :class:`ReportBuilder` what it did; whoever wants to know asks for the
:class:`Report`. Telling is cheap (nothing is rendered), reading renders what is looked at. Neither
ever touches a tensor: what the builder is given are traces, plans, layouts and words.
"""

from torchy.ir.trace import Source
from torchy.report.builder import ReportBuilder
from torchy.report.records import (
    EventRecord,
    GroupRecord,
    KernelRecord,
    OlderRecord,
    OpRecord,
    RanNowRecord,
    TensorRecord,
    Totals,
    TraceRecord,
    format_bytes,
    format_seconds,
)
from torchy.report.report import Report

__all__ = [
    "EventRecord",
    "GroupRecord",
    "KernelRecord",
    "OlderRecord",
    "OpRecord",
    "RanNowRecord",
    "Report",
    "ReportBuilder",
    "Source",
    "TensorRecord",
    "Totals",
    "TraceRecord",
    "format_bytes",
    "format_seconds",
]
