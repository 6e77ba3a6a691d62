"""The explorer's first line, in words: what became of a cell's ops, and what that brought."""

from __future__ import annotations

from torchy.report import format_bytes, format_seconds
from torchy_jupyter.explorer.shown import Account, Snapshot

LEAST_COMPARED = 1e-3  # seconds: a shorter cell is not compared with eager
MOSTLY = 0.3  # of a cell's time that planning and compiling may take: else that is told
ABOUT_THE_SAME = 1.05


def summary(snapshot: Snapshot) -> tuple[str, ...]:
    """Return the parts of the line: ``*23* ops → *8* kernels + *6* calls``, ``4 flushes``, ``186 ms · ~1.1× faster``, ...

    What stands between stars is bold where that can be shown.
    """
    counts = snapshot.counts
    if not counts.ops and not counts.eager:
        return ("No op was deferred in this cell.",)
    made = []
    if counts.kernels:
        made.append(_count(counts.kernels, "kernel"))
    if counts.calls:
        made.append(_count(counts.calls, "call"))
    if counts.one_by_one:
        made.append(f"*{counts.one_by_one:,}* one by one")
    parts = [f"{_count(counts.ops, 'op')} → {' + '.join(made) or 'nothing to run'}"]
    parts.append(_count(counts.flushes, "flush", "flushes").replace("*", ""))
    parts.append(_time(snapshot.account))
    if counts.bytes_saved:
        parts.append(f"{format_bytes(counts.bytes_saved)} never touched memory")
    return tuple(parts)


def speed(account: Account) -> str:
    """Return how fast the cell was against eager, apart from what looking on took; empty if that cannot be told."""
    own = account.cell - account.watching
    if not account.eager_cell or own < LEAST_COMPARED:
        return ""
    if account.prepared > MOSTLY * own:
        return f"{format_seconds(account.prepared)} of it compiling"
    ratio = account.eager_cell / own
    if 1 / ABOUT_THE_SAME < ratio < ABOUT_THE_SAME:
        return "about eager's time"
    about = "" if account.measured else "~"
    return f"{about}{ratio:.1f}× faster" if ratio > 1 else f"{about}{1 / ratio:.1f}× slower"


def _time(account: Account) -> str:
    compared = speed(account)
    watching = f" + {format_seconds(account.watching)} looking on" if account.watching else ""
    own = format_seconds(account.cell - account.watching)
    return own + watching + (f" · *{compared}*" if compared else "")


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"*{number:,}* {noun if number == 1 else plural or noun + 's'}"


def tags(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Return what else the first line says, with its kind: that the cell failed, or that the session sleeps."""
    found = []
    if snapshot.error:
        found.append(("error", f"failed: {snapshot.error}"))
    if snapshot.equal is not None:
        found.append(
            ("equal", "bits equal") if snapshot.equal else ("error", "OTHER BITS than eager")
        )
    if snapshot.birth:
        found.append(("error", snapshot.birth.short))
    if snapshot.asleep:
        found.append(("asleep", "asleep"))
    return found


def time_parts(account: Account) -> list[tuple[str, float]]:
    """Return the shares of the cell's time, each with how it is drawn."""
    whole = account.cell or 1.0
    parts = (
        ("ink", account.kernels),
        ("softer", account.interpreted),
        ("soft", account.calls),
        ("hatch", account.eager),
        ("paler", account.prepared),
        ("mid", account.hidden),
        ("mid", account.watching),
        ("pale", account.outside),
    )
    return [(style, seconds / whole) for style, seconds in parts if seconds > 0]
