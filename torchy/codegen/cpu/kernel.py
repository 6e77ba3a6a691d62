"""LLVM IR -> a kernel that can be called."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, Final

import llvmlite.binding as llvm
import torch

from torchy.codegen.cpu import driver, threads
from torchy.codegen.cpu.compare import Run
from torchy.codegen.cpu.driver import HEADER, MOST_OUTER
from torchy.codegen.cpu.facts import facts
from torchy.codegen.cpu.launch import launch_words
from torchy.codegen.cpu.math import MathLibrary
from torchy.codegen.cpu.module import Module, write_module
from torchy.codegen.cpu.routines import Routine, code
from torchy.codegen.cpu.verdicts import Verdicts
from torchy.codegen.cpu.verify import Verifier
from torchy.codegen.errors import CompileError
from torchy.codegen.loops import lower
from torchy.disk import Shelf
from torchy.ir.kernel import WHOLE, ColumnOrder, KernelForm, Order
from torchy.ir.ops import Numerics, OpSpec, Rule
from torchy.ir.trace import Mode
from torchy.ir.words import ViewWords

LOOP_NEST, LLVM_IR, ASSEMBLY = "loop nest", "LLVM IR", "assembly"  # levels
OPTIMIZATION: Final = 2
VERSION: Final = 1  # of the code that is generated: part of a kernel's id
_LETTERS: Final = {bool: "q", int: "q", float: "d"}

PackedAccess = tuple[int, Sequence[int] | None]
Packed = ctypes.Array[ctypes.c_int64]
Dimension = tuple[int, list[int]]  # size of a dimension, and the stride of each access in bytes


class Kernel:
    """Compiled code for one kernel form.

    Parameters
    ----------
    form
        What it computes.
    identity
        Short hash of the form, the machine and the versions: equal in all processes on equal machines.
    module
        Its loop nest, and its code as text.
    compiler
        What compiled it, with the code that all kernels share.
    engine
        Owns the code: lives as long as the kernel does.
    seconds
        What compiling took.
    """

    __slots__ = (
        "_flat", "_inner_steps", "_itemsizes", "_linear", "_moves", "_words", "address", "compile_seconds", "compiler",
        "engine", "fewer_than", "form", "function", "id", "most_elements", "llvm_ir", "nest",
    )  # fmt: skip

    def __init__(
        self,
        form: KernelForm,
        identity: str,
        module: Module,
        compiler: Compiler,
        engine: Any,
        seconds: float,
    ) -> None:
        self.form = form
        self.id = identity
        self.nest = module.nest
        self.llvm_ir = module.text
        self.most_elements = module.most_elements
        self.fewer_than = module.fewer_than
        self.compiler = compiler
        self.engine = engine
        self.compile_seconds = seconds
        self.address: int = engine.get_function_address("kernel")
        self.function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32)(self.address)
        modes = [access.mode for access in form.accesses]
        self._itemsizes = tuple(access.dtype.itemsize for access in form.accesses)
        self._linear = form.flat or form.axes == WHOLE
        self._moves = tuple(mode not in (Mode.SCALAR, Mode.ROW) for mode in modes)
        still = (Mode.SCALAR, Mode.REPEAT, *(() if form.has_columns else (Mode.ROW,)))
        self._inner_steps = [
            0 if mode in still else size for mode, size in zip(modes, self._itemsizes, strict=True)
        ]
        letters = "".join(_LETTERS[kind] for kind in form.number_kinds)
        self._flat = struct.Struct(f"={HEADER + 2 * len(modes)}q{letters}").pack
        self._words = ctypes.c_int64 * (HEADER + 2 * len(modes) + len(letters))

    @property
    def levels(self) -> dict[str, Callable[[], str]]:
        """What gives its texts, from the most readable one down."""
        return {
            LOOP_NEST: self.nest.__str__,
            LLVM_IR: lambda: self.llvm_ir,
            ASSEMBLY: lambda: self.compiler.assembly(self.llvm_ir),
        }

    @property
    def may_refuse(self) -> bool:
        """Whether there are layouts that it cannot be launched for."""
        return self.form.has_rows

    def launch_words(
        self,
        space: ViewWords,
        accesses: Sequence[ViewWords],
        numbers: Sequence[int],
        reduced: Sequence[int] = (),
    ) -> list[int]:
        """Return what the walker needs to launch it: see :mod:`torchy.codegen.cpu.launch`."""
        most, few = self.most_elements, self.fewer_than
        return launch_words(self.form, space, accesses, numbers, reduced, most, few)

    def pack(
        self,
        sizes: Sequence[int],
        accesses: Sequence[PackedAccess],
        numbers: Sequence[bool | int | float] = (),
    ) -> Packed:
        """Lay out the arguments of one launch.

        Parameters
        ----------
        sizes
            Of the space, outermost dimension first; of a kernel of rows, the last is a row; of a kernel of columns, the last
            two are the reduced dimension and the columns.
        accesses
            For each of the form's accesses: its address in bytes, offset included, and its strides in elements, in the
            order of ``sizes``; None for LINEAR and SCALAR.
        numbers
            One for each of the form's number kinds.

        Returns
        -------
        Packed
            64-bit words, for :meth:`launch` or for the C function at ``address``.
        """
        if self._linear:
            total = math.prod(sizes)
            data = self._flat(
                total, total, 0, *[access[0] for access in accesses], *self._inner_steps, *numbers
            )
            return self._words.from_buffer_copy(data)
        strides = [given for _, given in accesses]
        if self.form.has_rows:
            rows, dense, end = [], 1, len(sizes)
            for begin in ((end - 2, end - 1) if self.form.has_columns else (end - 1,))[::-1]:
                part = [given and given[begin:end] for given in strides]
                none = (1, self._inner_steps if end == len(sizes) else [0] * len(accesses))
                rows += self._merge(sizes[begin:end], part, dense) or [none]
                dense, end = dense * sizes[begin], begin
            rows += self._merge(sizes[:end], strides, dense)
        else:
            rows = self._merge(sizes, strides)
            if not rows or not self._fits(rows[0][1]):
                rows.insert(0, (1, self._inner_steps))  # the inner dimension has one element
        (inner, steps), outer = rows[0], rows[:0:-1]
        if len(outer) > MOST_OUTER:
            raise ValueError(f"{len(outer)} outer dimensions, at most {MOST_OUTER}")
        head = self._flat(
            math.prod(sizes), inner, len(outer), *[at for at, _ in accesses], *steps, *numbers
        )
        words = [size for size, _ in outer]
        words += [step for _, row in outer for step in row]
        data = head + struct.pack(f"={len(words)}q", *words)
        return (ctypes.c_int64 * (len(data) // 8)).from_buffer_copy(data)

    def _merge(
        self, sizes: Sequence[int], strides: Sequence[Sequence[int] | None], dense: int = 1
    ) -> list[Dimension]:
        """Merge dimensions where all accesses allow it; innermost first. ``dense``: elements that lie within them."""
        rows: list[Dimension] = []
        for at in range(-1, -1 - len(sizes), -1):
            size = sizes[at]
            if size != 1:
                row = [
                    (dense if moves else 0) * item
                    if stride is None
                    else stride[len(sizes) + at] * item
                    for stride, item, moves in zip(
                        strides, self._itemsizes, self._moves, strict=True
                    )
                ]
                if rows and all(
                    a * rows[-1][0] == b for a, b in zip(rows[-1][1], row, strict=True)
                ):
                    rows[-1] = (rows[-1][0] * size, rows[-1][1])
                else:
                    rows.append((size, row))
            dense *= size
        return rows

    def _fits(self, steps: list[int]) -> bool:
        """Tell if the code, which takes the modes at their word, is right for these inner steps."""
        return all(
            access.mode is Mode.STRIDED or step == wanted
            for access, step, wanted in zip(
                self.form.accesses, steps, self._inner_steps, strict=True
            )
        )

    def launch(self, packed: Packed, threads: int = 1) -> None:
        """Run, without the GIL, on at most this many threads."""
        self.function(ctypes.addressof(packed), threads)


class Compiler:
    """The backend for the CPU: see :class:`torchy.codegen.backend.Backend`. Holds what all kernels share.

    Parameters
    ----------
    shelf
        Where machine code is kept for the next process, and which ops agree with eager here.
    """

    def __init__(self, shelf: Shelf | None = None) -> None:
        self.shelf = shelf
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.cpu = llvm.get_host_cpu_name()
        self.features = llvm.get_host_cpu_features().flatten()
        self.machine = self._machine()  # holds much once it has compiled: all kernels share it
        self.math = MathLibrary.of_torch()
        self.pool = threads.pool()
        self.facts = functools.cache(facts)
        verdicts = Verdicts(shelf, self.facts)
        self.verifier = Verifier(self._compile_unverified, self.math.lanes, verdicts)
        self.driver = self._engine(driver.driver(bool(self.pool)), self.pool)
        self.entries: dict[str, int] = {
            name: self.driver.get_function_address(name) for name in driver.ENTRIES
        }
        self._routines: dict[str, Any] = {}  # engines, by the name of what they have

    def _machine(self) -> Any:
        target = llvm.Target.from_default_triple()
        return target.create_target_machine(cpu=self.cpu, features=self.features, opt=OPTIMIZATION)

    def _engine(self, text: str, symbols: Mapping[str, int]) -> Any:
        """Compile a module that calls these symbols, or load it; the engine owns the code."""
        try:
            code = llvm.ObjectFileRef.from_data(self._object(text))
            engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), self._machine())
            called = llvm.parse_assembly("".join(f"declare void @{name}()\n" for name in symbols))
            for name, address in symbols.items():
                engine.add_global_mapping(called.get_function(name), address)
            engine.add_object_file(code)
            engine.finalize_object()
        except RuntimeError as error:
            raise CompileError(f"LLVM: {error}") from error
        return engine

    def _object(self, text: str) -> bytes:
        """Return a module's machine code, as an object file."""
        made = f"by LLVM {llvm.llvm_version_info} -O{OPTIMIZATION}"
        key = f"object for {self.cpu} {self.features} {made}\n{text}"
        code = self.shelf.read(key) if self.shelf else None
        if code is None:
            code = bytes(self.machine.emit_object(llvm.parse_assembly(text)))
            if self.shelf:
                self.shelf.write(key, code)
        return code

    def identity(self, form: KernelForm, numerics: Numerics = "exact") -> str:
        """Return the id of the kernel that this form gets: equal in all processes on equal machines."""
        text = repr(
            (VERSION, form, numerics, self.cpu, self.features, self.math.lanes, torch.__version__)
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def why_inexact(
        self,
        spec: OpSpec,
        rule: Rule | None,
        compute: torch.dtype,
        literals: Mapping[str, object],
        still: frozenset[str] = frozenset(),
        by_position: bool = False,
    ) -> str:
        """Return what is known against a formula's having eager's bits: see :meth:`Verifier.why_inexact`."""
        return self.verifier.why_inexact(spec, rule, compute, literals, still, by_position)

    def by_position(self, spec: OpSpec, compute: torch.dtype) -> bool:
        """Return whether eager computes otherwise at the ends of its loops: see :meth:`Verifier.by_position`."""
        return self.verifier.by_position(spec, compute)

    def order(
        self, op: str, operator: str, dtype: torch.dtype, columns: bool = False
    ) -> Order | ColumnOrder | None:
        """Return the order in which eager reduces rows: see :meth:`Verifier.order`."""
        return self.verifier.order(op, operator, dtype, columns)

    def levels(self, form: KernelForm) -> dict[str, Callable[[], str]]:
        """Return what gives the texts of a form that is not compiled."""
        return {LOOP_NEST: lambda: str(lower(form, self.math.inline))}

    def compile(self, form: KernelForm, numerics: Numerics = "exact") -> Kernel:
        """Compile a form.

        In exact mode, an op that no kernel of this compiler has had before is compared with eager first.

        Raises
        ------
        CompileError
            If it cannot be compiled, or has an op that does not agree with eager on this machine.
        """
        if not form.accesses or not form.stores:
            raise CompileError("a kernel without accesses or stores")
        if numerics == "exact":
            self.verifier.check(form)
        return self._compile(form, numerics)

    def _compile_unverified(self, form: KernelForm) -> Run:
        kernel = self._compile(form, "fast")

        def run(
            sizes: Sequence[int],
            tensors: list[torch.Tensor],
            numbers: list[Any],
            *results: torch.Tensor,
        ) -> None:
            of_row = (0, 1) if form.has_columns else (1, 0)
            steps = {Mode.ROW: of_row, Mode.UNIT: (0, 1)}
            addresses = [tensor.data_ptr() for tensor in (*tensors, *results)]
            strides = [steps.get(access.mode) for access in form.accesses]
            packed = kernel.pack(sizes, list(zip(addresses, strides, strict=True)), numbers)
            kernel.launch(packed, torch.get_num_threads() if packed[0] >= threads.GRAIN else 1)

        return run

    def _compile(self, form: KernelForm, numerics: Numerics) -> Kernel:
        start = perf_counter()
        module = write_module(form, self.math)
        symbols = {function.symbol: self.math.address(function.symbol) for function in module.math}
        symbols |= {name: self._address_of(name, what) for name, what in module.routines.items()}
        drive = driver.entry(form)
        engine = self._engine(module.text, {drive: self.entries[drive], **symbols})
        identity = self.identity(form, numerics)
        return Kernel(form, identity, module, self, engine, perf_counter() - start)

    def _address_of(self, name: str, routine: Routine) -> int:
        """Return the address of what reduces a row, or columns."""
        engine = self._routines.get(routine.symbol)
        if engine is None:
            engine = self._routines[routine.symbol] = self._engine(code(routine), {})
        address: int = engine.get_function_address(name)
        return address

    def assembly(self, llvm_ir: str) -> str:
        """Return a module's machine code as text."""
        return str(self._machine().emit_assembly(llvm.parse_assembly(llvm_ir)))
