"""Torchy: a tracing JIT compiler for PyTorch that keeps eager's semantics to the last bit."""

from torchy.face import (
    current_session,
    disable,
    enable,
    flush,
    is_pending,
    lazy,
    release_memory,
    walker_ready,
)
from torchy.record.building import WalkerUnavailable
from torchy.report import Report
from torchy.session.session import Session
from torchy.settings import Settings, switched_off
from torchy.watch.receipt import Receipt
from torchy.watch.store import NotKept

__version__ = "0.1.0.dev0"

__all__ = [
    "NotKept",
    "Receipt",
    "Report",
    "Session",
    "Settings",
    "WalkerUnavailable",
    "current_session",
    "disable",
    "enable",
    "flush",
    "is_pending",
    "lazy",
    "release_memory",
    "switched_off",
    "walker_ready",
]
