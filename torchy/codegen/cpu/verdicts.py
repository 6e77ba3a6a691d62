"""Which ops have been seen to agree with eager on this machine: remembered for the processes to come.

A verdict holds for one machine, one torch and one Torchy. Whatever else eager's bits may depend on is part of the key: the
instruction set that ATen uses, switches of the libraries that it calls, and the sources of what is compared.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Final

import llvmlite
import llvmlite.binding as llvm
import torch

from torchy.disk import Shelf

Key = tuple[str, torch.dtype, str]  # op, dtype computed in, literals that choose the formula

_SOURCES: Final = ("codegen", "ir")
_SWITCHES: Final = ("ATEN_", "MKL_", "ONEDNN_", "DNNL_")  # of the environment


class Verdicts:
    """Where an op differs from eager, by key; empty text if nowhere. What agrees is kept on a shelf.

    Parameters
    ----------
    shelf
        None: nothing is remembered for other processes.
    """

    def __init__(self, shelf: Shelf | None = None) -> None:
        self._shelf = shelf
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
        library = (Path(torch.__file__).parent / "lib" / "libtorch_cpu.so").stat()
        sources = hashlib.sha256()
        for folder in _SOURCES:
            for file in sorted((Path(__file__).parents[2] / folder).rglob("*.py")):
                sources.update(file.read_bytes())
        facts = (
            torch.__version__, torch.version.git_version, library.st_size, library.st_mtime_ns,
            torch.backends.cpu.get_cpu_capability(), llvm.get_host_cpu_name(),
            llvm.get_host_cpu_features().flatten(), llvmlite.__version__, llvm.llvm_version_info,
            sorted(item for item in os.environ.items() if item[0].startswith(_SWITCHES)),
            sources.hexdigest(),
        )  # fmt: skip
        return f"ops that agree with eager: {facts!r}"
