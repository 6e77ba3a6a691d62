"""Which ops have been seen to agree with eager on this machine: remembered for the processes to come.

A verdict holds for one machine, one torch and one Torchy: see :mod:`torchy.codegen.cpu.facts`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cached_property

import torch

from torchy.codegen.cpu.facts import facts
from torchy.disk import Shelf

Key = tuple[str, torch.dtype, str]  # op, dtype computed in, literals that choose the formula


class Verdicts:
    """Where an op differs from eager, by key; empty text if nowhere. What agrees is kept on a shelf.

    Parameters
    ----------
    shelf
        None: nothing is remembered for other processes.
    facts
        Tells what they depend on.
    """

    def __init__(self, shelf: Shelf | None = None, facts: Callable[[], str] = facts) -> None:
        self._shelf = shelf
        self._facts = facts
        self._known: dict[Key, str] = {}
        self._read = self._written = False

    def differs(self, key: Key) -> bool:
        """Tell whether this process has seen an op differ."""
        return bool(self._known.get(key))

    def get(self, key: Key) -> str | None:
        """Return what is known, None if that is nothing."""
        if not self._read:
            self._read = True
            for agreeing in self._kept():
                self._known.setdefault(agreeing, "")
        return self._known.get(key)

    def put(self, key: Key, verdict: str) -> None:
        """Note a verdict."""
        self._known[key] = verdict
        self._written = True

    def keep(self) -> None:
        """Keep what is new for other processes: only that an op agrees, what else was seen may have had other reasons."""
        if self._shelf is None or not self._written:
            return
        self._written = False
        agreeing = {key for key, text in self._known.items() if not text}.union(self._kept())
        rows = sorted([name, str(dtype), literals] for name, dtype, literals in agreeing)
        self._shelf.write(self._machine, json.dumps(rows).encode())

    def _kept(self) -> Iterator[Key]:
        kept = self._shelf.read(self._machine) if self._shelf is not None else None
        for name, dtype, literals in json.loads(kept) if kept else ():
            yield name, getattr(torch, dtype.removeprefix("torch.")), literals

    @cached_property
    def _machine(self) -> str:
        return f"ops that agree with eager: {self._facts()}"
