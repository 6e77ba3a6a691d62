"""Primitives -> LLVM instructions, on one element or on a vector of them.

No fast-math flag, nothing that is poison where eager's code is defined, no contraction but the formula's own ``fma``.
"""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass, field
from typing import Final

import torch

from torchy.codegen.errors import CompileError
from torchy.codegen.loops import Node
from torchy.ir.dtypes import kind_of

# in registers; in memory a bool is a byte
TYPES: Final = {
    torch.float32: "float", torch.float64: "double", torch.int32: "i32", torch.int64: "i64", torch.bool: "i1",
    torch.bfloat16: "i16",  # its bits: nothing is computed in it
}  # fmt: skip
_BINARY: Final = {
    "f": {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"},
    "i": {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor", "shl": "shl", "shr": "ashr"},
    "b": {"and": "and", "or": "or", "xor": "xor"},
}  # fmt: skip
_COMPARE: Final = {
    "f": {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"},
    "i": {"lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge", "eq": "eq", "ne": "ne"},
    "b": {"lt": "ult", "le": "ule", "gt": "ugt", "ge": "uge", "eq": "eq", "ne": "ne"},
}
_INTRINSICS: Final = {
    "fma": "fma", "sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "trunc": "trunc", "rint": "roundeven",
    "copysign": "copysign",
}  # fmt: skip


def constant(node: Node) -> str:
    """Write a constant as LLVM does: floats by their bits."""
    value = node.detail
    if node.dtype is torch.bool:
        return "true" if value else "false"
    if kind_of(node.dtype) == "i":
        bits = 8 * node.dtype.itemsize
        wrapped = (int(value) + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)  # type: ignore[arg-type]
        return str(wrapped)
    number = float(value)  # type: ignore[arg-type]
    if node.dtype is torch.bfloat16:
        (bits,) = struct.unpack("<I", struct.pack("<f", number))
        return str(bits >> 16)
    if node.dtype is torch.float32:
        number = ctypes.c_float(number).value
    return f"0x{struct.unpack('>Q', struct.pack('>d', number))[0]:016X}"


def _suffix(dtype: torch.dtype) -> str:
    """Return how intrinsics call a type: ``f32`` for ``float``."""
    return f"f{8 * dtype.itemsize}" if kind_of(dtype) == "f" else TYPES[dtype]


@dataclass(slots=True)
class Emitter:
    """Writes instructions; each value gets a name of its own."""

    lanes: int = 16
    lines: list[str] = field(default_factory=list)
    declarations: set[str] = field(default_factory=set)
    counter: int = 0

    def fresh(self, hint: str = "t") -> str:
        """Return a name that no value has yet."""
        self.counter += 1
        return f"%{hint}{self.counter}"

    def emit(self, text: str, hint: str = "t") -> str:
        """Write an instruction; return the name of its value."""
        name = self.fresh(hint)
        self.lines.append(f"  {name} = {text}")
        return name

    def type(self, dtype: torch.dtype, vector: bool) -> str:
        """Return the LLVM type of a value in registers."""
        return f"<{self.lanes} x {TYPES[dtype]}>" if vector else TYPES[dtype]

    def memory_type(self, dtype: torch.dtype) -> str:
        """Return the LLVM type of an element in memory: a bool is a byte."""
        return "i8" if dtype is torch.bool else TYPES[dtype]

    def primitive(self, node: Node, given: torch.dtype, inputs: list[str], vector: bool) -> str:
        """Write one primitive, on one element or on a vector of them; ``given`` is the dtype of its first input."""
        dtype, kind = node.dtype, kind_of(node.dtype)
        text = self.type(dtype, vector)
        if node.op in _BINARY[kind]:
            return self.emit(f"{_BINARY[kind][node.op]} {text} {inputs[0]}, {inputs[1]}")
        if node.op in _COMPARE["f"]:
            of = kind_of(given)
            order = _COMPARE[of][node.op]
            return self.emit(
                f"{'fcmp' if of == 'f' else 'icmp'} {order} {self.type(given, vector)} {inputs[0]}, {inputs[1]}"
            )
        if node.op == "select":
            test = self.type(torch.bool, vector)
            return self.emit(f"select {test} {inputs[0]}, {text} {inputs[1]}, {text} {inputs[2]}")
        if node.op == "cast":
            return self._cast(inputs[0], given, dtype, vector)
        if node.op == "neg":
            return self.emit(
                f"fneg {text} {inputs[0]}"
                if kind == "f"
                else f"sub {text} {self._zero(vector)}, {inputs[0]}"
            )
        if node.op == "not":
            ones = "true" if kind == "b" else "-1"
            every = f"splat ({TYPES[dtype]} {ones})" if vector else ones
            return self.emit(f"xor {text} {inputs[0]}, {every}")
        if node.op == "abs" and kind == "i":
            return self._intrinsic("abs", text, dtype, vector, inputs, ", i1 false")
        if node.op == "ldexp" and dtype is torch.float32:
            return self._scaled(inputs[0], inputs[1], vector)
        if node.op in ("abs", *_INTRINSICS) and kind == "f":
            return self._intrinsic(_INTRINSICS.get(node.op, "fabs"), text, dtype, vector, inputs)
        raise CompileError(f"no code for {node.op} on {dtype}")

    def _scaled(self, value: str, power: str, vector: bool) -> str:
        """Multiply a float32 by two to a power, a whole float32 of less than 252: in two factors, rounded once."""
        wide, word = self._of("float", vector), self._of("i32", vector)
        self.declarations.add(
            f"declare {wide} @llvm.floor.{self._overload('f32', vector)}({wide})\n"
        )
        half = self.emit(f"fmul {wide} {power}, {self._splatted('float 0.5', vector)}")
        floor = f"@llvm.floor.{self._overload('f32', vector)}"
        first = self.emit(f"call {wide} {floor}({wide} {half})")
        second = self.emit(f"fsub {wide} {power}, {first}")
        for part in (first, second):
            # behind 1.5 * 2^23, a whole number is the last bits of the sum
            sum_ = self.emit(f"fadd {wide} {part}, {self._splatted('float 12582912.0', vector)}")
            bits = self.emit(f"bitcast {wide} {sum_} to {word}")
            high = self.emit(f"shl {word} {bits}, {self._splatted('i32 23', vector)}")
            factor = self.emit(f"add {word} {high}, {self._splatted('i32 1065353216', vector)}")
            number = self.emit(f"bitcast {word} {factor} to {wide}")
            value = self.emit(f"fmul {wide} {value}, {number}")
        return value

    def _overload(self, suffix: str, vector: bool) -> str:
        """Return how an intrinsic is called for a type."""
        return f"v{self.lanes}{suffix}" if vector else suffix

    def _zero(self, vector: bool) -> str:
        return "zeroinitializer" if vector else "0"

    def _intrinsic(
        self,
        name: str,
        text: str,
        dtype: torch.dtype,
        vector: bool,
        inputs: list[str],
        more: str = "",
    ) -> str:
        symbol = f"@llvm.{name}.{self._overload(_suffix(dtype), vector)}"
        types = ", ".join([text] * len(inputs)) + (", i1" if more else "")
        self.declarations.add(f"declare {text} {symbol}({types})\n")
        return self.emit(
            f"call {text} {symbol}({', '.join(f'{text} {value}' for value in inputs)}{more})"
        )

    def _cast(self, value: str, given: torch.dtype, wanted: torch.dtype, vector: bool) -> str:
        if given is torch.bfloat16:
            value, given = self._widen(value, vector), torch.float32
        if wanted is torch.bfloat16:
            return self._round(self._cast(value, given, torch.float32, vector), vector)
        if given is wanted:
            return value
        source, target = self.type(given, vector), self.type(wanted, vector)
        kinds = kind_of(given) + kind_of(wanted)
        if wanted is torch.bool:
            compare = "fcmp une" if kinds[0] == "f" else "icmp ne"
            return self.emit(
                f"{compare} {source} {value}, {'zeroinitializer' if vector else self._literal_zero(given)}"
            )
        if kinds == "fi":
            return self._to_integer(value, given, wanted, vector)
        wider = wanted.itemsize > given.itemsize
        operation = {
            "bf": "uitofp",
            "bi": "zext",
            "if": "sitofp",
            "ii": "sext" if wider else "trunc",
            "ff": "fpext" if wider else "fptrunc",
        }[kinds]
        return self.emit(f"{operation} {source} {value} to {target}")

    def _widen(self, value: str, vector: bool) -> str:
        """Convert a bfloat16 to float32."""
        short, word, wide = (self._of(kind, vector) for kind in ("i16", "i32", "float"))
        bits = self.emit(f"zext {short} {value} to {word}")
        high = self.emit(f"shl {word} {bits}, {self._splatted('i32 16', vector)}")
        return self.emit(f"bitcast {word} {high} to {wide}")

    def _round(self, value: str, vector: bool) -> str:
        """Convert a float32 to bfloat16, ties to even; in integers, since instructions for it lose denormals."""
        short, word, wide = (self._of(kind, vector) for kind in ("i16", "i32", "float"))
        sixteen = self._splatted("i32 16", vector)
        bits = self.emit(f"bitcast {wide} {value} to {word}")
        high = self.emit(f"lshr {word} {bits}, {sixteen}")
        odd = self.emit(f"and {word} {high}, {self._splatted('i32 1', vector)}")
        half = self.emit(f"add {word} {odd}, {self._splatted('i32 32767', vector)}")
        sum_ = self.emit(f"add {word} {bits}, {half}")
        found = self.emit(f"lshr {word} {sum_}, {sixteen}")
        missing = self.emit(f"fcmp uno {wide} {value}, {value}")
        nan = self._splatted("i32 65535", vector)  # as in eager's vector body
        found = self.emit(
            f"select {self._of('i1', vector)} {missing}, {word} {nan}, {word} {found}"
        )
        return self.emit(f"trunc {word} {found} to {short}")

    def _of(self, kind: str, vector: bool) -> str:
        return f"<{self.lanes} x {kind}>" if vector else kind

    def _splatted(self, constant: str, vector: bool) -> str:
        return f"splat ({constant})" if vector else constant.partition(" ")[2]

    def _literal_zero(self, dtype: torch.dtype) -> str:
        return "0.0" if kind_of(dtype) == "f" else "0"

    def _to_integer(self, value: str, given: torch.dtype, wanted: torch.dtype, vector: bool) -> str:
        """Convert as x86 does: what does not fit, NaN included, becomes the least integer."""
        source, target, test = (self.type(d, vector) for d in (given, wanted, torch.bool))
        bits = 8 * wanted.itemsize
        top = struct.unpack(">Q", struct.pack(">d", 2.0 ** (bits - 1)))[0]
        bottom = struct.unpack(">Q", struct.pack(">d", -(2.0 ** (bits - 1))))[0]

        def same(text: str, dtype: torch.dtype) -> str:
            return f"splat ({TYPES[dtype]} {text})" if vector else text

        # Truncation makes -2**31 - 0.5 fit; it becomes the least integer either way.
        low = self.emit(f"fcmp oge {source} {value}, {same(f'0x{bottom:016X}', given)}")
        high = self.emit(f"fcmp olt {source} {value}, {same(f'0x{top:016X}', given)}")
        fits = self.emit(f"and {test} {low}, {high}")
        zero = "zeroinitializer" if vector else "0.0"
        safe = self.emit(f"select {test} {fits}, {source} {value}, {source} {zero}")
        whole = self.emit(f"fptosi {source} {safe} to {target}")
        least = same(str(-(1 << bits - 1)), wanted)
        return self.emit(f"select {test} {fits}, {target} {whole}, {target} {least}")
