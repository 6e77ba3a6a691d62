"""Kernels for the CPU: LLVM through llvmlite, eager's own vector math, torch's own threads."""

from __future__ import annotations

import functools

from torchy.codegen.cpu.kernel import Compiler, Kernel
from torchy.codegen.cpu.verify import Verifier
from torchy.codegen.errors import CompileError
from torchy.ir.kernel import KernelForm
from torchy.ir.ops import Numerics

__all__ = ["CompileError", "Compiler", "Kernel", "Verifier", "compile_kernel", "default_compiler"]


@functools.cache
def default_compiler() -> Compiler:
    """Return the compiler of this process: what it shares (the driver, what was verified) is about the machine."""
    return Compiler()


def compile_kernel(form: KernelForm, numerics: Numerics = "exact") -> Kernel:
    """Compile a kernel form; see :meth:`Compiler.compile`.

    Raises
    ------
    CompileError
        If it cannot be compiled, or has an op that does not agree with eager on this machine.
    """
    return default_compiler().compile(form, numerics)
