"""All that eager's bits, and what Torchy makes of them, may depend on: what is kept for other processes is kept by it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

import llvmlite
import llvmlite.binding as llvm
import torch

_SOURCES: Final = ("codegen", "ir", "plan")
_SWITCHES: Final = ("ATEN_", "MKL_", "ONEDNN_", "DNNL_")  # of the environment


def facts() -> str:
    """Return a text that is the same where verdicts and plans are: one machine, one torch, one Torchy.

    It has torch's build and the instruction set that ATen uses, switches of the libraries that it calls, the processor,
    LLVM, and the sources of what compares, plans and writes code.
    """
    library = (Path(torch.__file__).parent / "lib" / "libtorch_cpu.so").stat()
    sources = hashlib.sha256()
    for folder in _SOURCES:
        for file in sorted((Path(__file__).parents[2] / folder).rglob("*.py")):
            sources.update(file.read_bytes())
    found = (
        torch.__version__, torch.version.git_version, library.st_size, library.st_mtime_ns,
        torch.backends.cpu.get_cpu_capability(), llvm.get_host_cpu_name(),
        llvm.get_host_cpu_features().flatten(), llvmlite.__version__, llvm.llvm_version_info,
        sorted(item for item in os.environ.items() if item[0].startswith(_SWITCHES)),
        sources.hexdigest(),
    )  # fmt: skip
    return repr(found)
