"""Why a flush happened and why an op ran as eager, for somebody who has never heard of either."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping

AT_END = "end of cell"  # why the last flush of a cell happens
PLAIN = {
    AT_END: "the cell ended",
    "display": "a value is displayed",
    "print": "`print` shows a value",
    "max_ops recorded": "so many ops had been recorded",
    "memory bound reached": "to keep within the memory that eager would have needed",
    "process state changed": "a setting of torch was changed",
    "__array__()": "NumPy (or what is built on it: matplotlib, pandas) reads the values",
    "numpy()": "NumPy was given the values",
    "before a measurement": "the line is measured",
    "flush()": "the program asked for it",
    "torch.equal": "`torch.equal` compares the values",
}
# what on a line turns a tensor into a Python number without saying `item`
CONVERSIONS = re.compile(r"\b(float|int|bool|complex)\(")
SHOWN = re.compile(r"\b(print|round|format|range|max|min|sum)\(")
CONDITION = re.compile(r"^\s*(if|elif|while|assert)\b")
ASSIGNMENT = re.compile(
    r"\s*(?:for\s.*:\s*)?([A-Za-z_]\w*)\s*(?::[^=]+)?(?:[-+*/@&|^%]|//|\*\*)?=(?!=)"
)
RUNS_NOW = re.compile(r"^(?:aten::)?(\w+)(?:\.\w+)? runs now$")


def flush_reason(reason: str, line: str, why_now: Mapping[str, str]) -> str:
    """Return why a flush happened, in plain words.

    Parameters
    ----------
    reason
        As the report has it.
    line
        The text of the line that made it flush.
    why_now
        By op, short: why it ran as eager.
    """
    if reason == "item()":
        return _value_needed(line)
    if (found := RUNS_NOW.match(reason)) is not None:
        op = found[1]
        return f"`{op}` ran as eager and needed a value" + (
            f": {why_now[op]}" if op in why_now else ""
        )
    return PLAIN.get(reason, reason)


def _value_needed(line: str) -> str:
    if ".item(" in line:
        return "`.item()` needed a value"
    if (condition := CONDITION.match(line)) is not None:
        return f"`{condition[1]}` needed a value"
    if (conversion := CONVERSIONS.search(line) or SHOWN.search(line)) is not None:
        return f"`{conversion[1]}()` needed a value"
    if re.search(r"\bif\b.+\belse\b|\bnot\b|\band\b|\bor\b", line):
        return "a condition needed a value"
    return "a Python number was asked for"


def assigned_name(line: str) -> str:
    """Return the variable that a line assigns a value, empty if it assigns none or several, or more happens there."""
    found = ASSIGNMENT.match(line)
    several = ";" in line or "lambda" in line
    return found[1] if found and not several and not keyword.iskeyword(found[1]) else ""
