"""Which vector-math function serves which op and dtype: the one that eager itself calls.

With MKL in the build, ATen's ``vml`` kernels call MKL's ``vms*`` / ``vmd*``; the other vectorised kernels call SLEEF in
the width of the instruction set that ATen chose. Both are exported by ``libtorch_cpu.so``.
"""

from __future__ import annotations

import ast
import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch

from torchy.codegen.loops import Inline
from torchy.ir.kernel import Functions

VML_MODE: Final = 0x2 | 0x00140000 | 0x100  # HA | FTZDAZ_OFF | ERRMODE_IGNORE, as ATen sets it

_VML: Final = {
    "exp": "Exp", "log": "Ln", "log2": "Log2", "log10": "Log10", "sin": "Sin", "cos": "Cos", "tan": "Tan",
    "tanh": "Tanh", "erf": "Erf", "erfc": "Erfc", "erfinv": "ErfInv", "asin": "Asin", "acos": "Acos", "atan": "Atan",
    "root": "Sqrt",
}  # fmt: skip
_SLEEF: Final = {
    "exp2": "u10", "expm1": "u10", "log1p": "u10", "sinh": "u10", "cosh": "u10", "asinh": "u10", "acosh": "u10",
    "atanh": "u10", "lgamma": "u10", "pow": "u10", "atan2": "u10", "hypot": "u05", "fmod": "",
    "exp": "u10", "log": "u10", "log2": "u10", "log10": "u10", "sin": "u10", "cos": "u10", "tan": "u10",
    "tanh": "u10", "erf": "u10", "erfc": "u15", "asin": "u10", "acos": "u10", "atan": "u10",
}  # fmt: skip
BINARY: Final = frozenset(("pow", "atan2", "hypot", "fmod"))


# What SLEEF computes, for a formula that is written into the loop: equal to Sleef_expf16_u10 on all 2^32 inputs.
# (``xexpf`` in its sleefsimdsp.c; q is small enough that NaN and what overflows are all that needs care.)
_EXPF: Final = """(
    q := rint(x * 1.442695040888963407359924681001892137426645954152985934135449406931),
    s := fma(q, -1.428606765330187045e-06, fma(q, -0.693145751953125, x)),
    a := fma(0.000198527617612853646278381, s, 0.00139304355252534151077271),
    b := fma(fma(a, s, 0.00833336077630519866943359), s, 0.0416664853692054748535156),
    u := fma(fma(b, s, 0.166666671633720397949219), s, 0.5),
    y := ldexp(1 + fma(s * s, u, s), q),
    inf if 100 < x else 0 if x < -104 else y
)"""
INLINE: Final = {("exp", torch.float32): ast.parse(_EXPF, mode="eval").body}


@dataclass(frozen=True, slots=True)
class MathFunction:
    """A vector-math function: its symbol, and how it is called.

    ``vml`` takes ``(int32 n, in..., out, int64 mode)``; ``sleef`` takes and returns vectors of ``lanes`` elements, and
    ``libm``, the C library, single ones.
    """

    symbol: str
    library: Literal["vml", "sleef", "libm"]
    lanes: int
    arity: int


def choose_processor(library: ctypes.CDLL) -> None:
    """Let MKL's vector math find out on one thread which processor it runs on.

    It does so at the first call, without a lock, and stores its own number for the processor before the one that its
    tables go by: a second thread that calls it for the first time within these few instructions takes the functions of
    another processor or accuracy (``mkl_vml_serv_cpu_detect``; seen once in eager, an ``exp`` off by 3e-5).
    """
    one, result = (ctypes.c_float * 1)(1), (ctypes.c_float * 1)()
    library.vmsExp(ctypes.c_int32(1), one, result, ctypes.c_int64(VML_MODE))


@dataclass(frozen=True, slots=True)
class MathLibrary:
    """The vector-math functions that this build of torch exports.

    Parameters
    ----------
    library
        ``libtorch_cpu.so``; what is looked up there is found in the C library too.
    lanes
        float32 elements in a vector of the instruction set that ATen chose: 8 (AVX2) or 16 (AVX512); 0 if neither.
    mkl
        Was torch built with MKL: then ATen's ``vml`` kernels are MKL's.
    """

    library: ctypes.CDLL
    lanes: int
    mkl: bool

    @classmethod
    def of_torch(cls) -> MathLibrary:
        """Open the library of the torch that is imported."""
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        capability = torch.backends.cpu.get_cpu_capability()
        mkl: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
        if mkl:
            choose_processor(library)
        return cls(library, {"AVX2": 8, "AVX512": 16}.get(capability, 0), mkl)

    @property
    def inline(self) -> Inline:
        """The functions of vectors that are written into a loop: those of SLEEF, where eager calls them."""
        return INLINE if self.lanes else {}

    def find(
        self,
        name: str,
        dtype: torch.dtype,
        functions: Functions = Functions.ARRAYS,
        tail: bool = False,
    ) -> MathFunction | None:
        """Return the function that computes ``name`` on this dtype, None if the build has none.

        Parameters
        ----------
        functions, tail
            Which of eager's; by position, that for the tail of its loop, or that for the body.
        """
        double = dtype is torch.float64
        if functions is Functions.POSITION and tail:
            symbol = name if double else f"{name}f"
            return MathFunction(symbol, "libm", 1, 2 if name in BINARY else 1)
        if name in _VML and self.mkl and functions is Functions.ARRAYS:
            symbol = f"vm{'d' if double else 's'}{_VML[name]}"
            if self.address(symbol):
                return MathFunction(symbol, "vml", 1, 1)
        if name in _SLEEF and self.lanes:
            lanes = self.lanes // 2 if double else self.lanes
            accuracy = f"_{_SLEEF[name]}" if _SLEEF[name] else ""
            symbol = f"Sleef_{name}{'d' if double else 'f'}{lanes}{accuracy}"
            if self.address(symbol):
                return MathFunction(symbol, "sleef", lanes, 2 if name in BINARY else 1)
        return None

    def address(self, symbol: str) -> int:
        """Return the address of a symbol, 0 if there is none."""
        try:
            return ctypes.cast(self.library[symbol], ctypes.c_void_p).value or 0
        except AttributeError:
            return 0
