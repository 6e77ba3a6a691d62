"""What a bug report needs, as text for GitHub."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from torchy.report import Report

MOST_LISTED = 60  # lines of the listing


def issue_text(report: Report) -> str:
    """Return versions, the listing of the longest trace, and a script that runs it without Torchy."""
    versions = {
        name: _version(name) for name in ("torchy-jupyter", "llvmlite", "ipython", "anywidget")
    }
    versions = {"torch": torch.__version__, "Python": platform.python_version()} | versions
    parts = ["", ", ".join(f"{name} {number}" for name, number in versions.items())]
    parts.append(f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads")
    parts += ["", report.summary()]
    if report.traces:
        longest = max(report.traces, key=lambda record: len(record.trace.ops))
        lines = longest.listing.split("\n")
        if len(lines) > MOST_LISTED:
            lines[MOST_LISTED:] = [f"  … {len(lines) - MOST_LISTED} more lines"]
        parts += ["", "```", *lines, "```"]
        try:
            script = longest.reproducer()
        except (ValueError, RuntimeError) as error:  # sizes or an op are not known
            script = f"# {error}"
        parts += ["", "```python", script, "```"]
    return "\n".join(["**What happened, and what was expected:**", *parts])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # used from where its sources are
        return "not installed"
