"""Does a fused op give eager's bits on this machine? Asked of eager itself, on a few hundred values, once a process.

The table of formulas and the table of vector-math functions were made on some machines and builds of torch. Elsewhere
eager may use another function. An op that is seen to differ is not fused from then on: slower, never wrong.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch

from torchy.codegen.cpu import orders
from torchy.codegen.cpu.compare import Compile, same_bits
from torchy.codegen.cpu.exactness import BY_POSITION, inexact, no_formula
from torchy.codegen.cpu.threads import one_thread
from torchy.codegen.cpu.verdicts import Key, Verdicts
from torchy.codegen.cpu.verify_rows import attempt_rows
from torchy.codegen.errors import CompileError
from torchy.ir import kernel as ir
from torchy.ir.dtypes import IN_KERNELS, computed_in, kind_of
from torchy.ir.ops import ROWS, STEPS, OpSpec, Rule, lookup, spec_of
from torchy.ir.trace import Mode

_own: Final = torch._C._VariableFunctions  # torch's, whatever the program has put in their place

_FLOATS: Final = (
    0.0, -0.0, float("nan"), 1.0, -1.0, -3.0, 3.0, float("inf"), 0.5, -0.5, 2.5, -float("inf"), 1e-40, -1e-310, 3e38,
    1.7, -0.999, 88.9, 0.9999999, -104.0, 6.0,
)  # fmt: skip
_INTEGERS: Final = (0, 1, -1, 2, 7, -8, 31, 32, 63, 64, 100000, 2**31 - 1, -(2**31))
_WIDE: Final = (2**53 + 1, 2**63 - 1, -(2**63))
_SCALARS: Final = {"f": (0.7, 1.0, -2.3), "i": (3, 1, -2), "b": (True, False, True)}
_RANDOM: Final = 240
# where 16 bits are computed: of results that are off before they are rounded to so few, one in a thousand shows it
_RANDOM_SHORT: Final = 20_000
SEEN: Final = "it has been seen to differ on this machine"
PIECES: Final = 50
PIECE: Final = 3  # shorter than any vector: eager's scalar tail alone


def samples(dtype: torch.dtype, count: int, seed: int, many: int = _RANDOM) -> list[torch.Tensor]:
    """Return ``count`` tensors of equal odd length: all pairs of special values, the worst first, then many random ones."""
    generator = torch.Generator().manual_seed(seed)
    kind = kind_of(dtype)
    special = _special(dtype)
    pairs = _own.tensor(sorted(itertools.product(range(len(special)), repeat=2), key=max))
    columns = [pairs[:, 0], pairs[:, 1]]
    while len(columns) < count:
        columns.append(_own.randint(len(special), (len(pairs),), generator=generator))
    found = []
    for column in columns[:count]:
        if kind == "b":
            random = _own.lt(_own.rand(many, generator=generator), 0.5)
        elif kind == "i":
            random = _own.randint(-100, 100, (many,), generator=generator).to(dtype)
        else:
            random = _own.randn(many, generator=generator, dtype=dtype)
            powers = _own.pow(10.0, _own.randint(-3, 3, (many,), generator=generator))
            random = _own.mul(random, powers).to(dtype)
        both = _own.cat([special[column], random])
        found.append(both[: len(both) // 8 * 8 - 1])
    return found


def _special(dtype: torch.dtype) -> torch.Tensor:
    kind = kind_of(dtype)
    if kind == "b":
        return _own.tensor([False, True])
    if kind == "f":
        return _own.tensor(_FLOATS, dtype=torch.float64).to(dtype)
    return _own.tensor(_INTEGERS + (_WIDE if dtype is torch.int64 else ()), dtype=dtype)


@dataclass(frozen=True, slots=True)
class Trial:
    """One way to call an op, in eager and as a kernel.

    Parameters
    ----------
    overload
        The functional overload that eager runs.
    statement
        The statement that the kernel runs: loads are numbered by tensor, runtime numbers by scalar.
    tensors, scalars
        Parameter names, in that order.
    operands
        The dtype of each tensor.
    """

    overload: str
    statement: ir.Statement
    tensors: tuple[str, ...]
    scalars: tuple[str, ...]
    operands: tuple[torch.dtype, ...]
    literals: Mapping[str, object]

    def form(self, kinds: tuple[type, ...]) -> ir.KernelForm:
        """Return the kernel form; its last access is the result."""
        dtypes = (*self.operands, self.statement.dtype)
        accesses = tuple(ir.Access(dtype, Mode.LINEAR) for dtype in dtypes)
        return ir.KernelForm(
            accesses, kinds, (self.statement,), (ir.Store(len(accesses) - 1, ir.Result(0)),)
        )

    def eager(self, tensors: list[torch.Tensor], scalars: list[Any]) -> torch.Tensor:
        """Run the op."""
        named: dict[str, Any] = {"self_is_result": False, **self.literals}
        named.update(zip(self.tensors, tensors, strict=True))
        named.update(zip(self.scalars, scalars, strict=True))
        if "self" not in named:  # what is only written, or gives its sizes
            named["self"] = _own.empty(
                tensors[0].shape if tensors else (511,), dtype=self.statement.dtype
            )
        if self.statement.op == "_to_copy":
            named["dtype"] = self.statement.dtype
        base, _, overload = self.overload.removeprefix("aten::").partition(".")
        op = getattr(getattr(torch.ops.aten, base), overload or "default")
        wanted = {argument.name for argument in op._schema.arguments}
        result: torch.Tensor = op(
            **{name: value for name, value in named.items() if name in wanted}
        )
        return result


def trials(spec: OpSpec, compute: torch.dtype, literals: Mapping[str, object]) -> Iterator[Trial]:
    """Yield ways to call an op: each functional overload in the table, and for conversions each source dtype."""
    packet = getattr(torch.ops.aten, spec.name.removesuffix("_tensor").removesuffix("_mode"))
    for overload in packet.overloads():
        name = f"aten::{packet.__name__}" + ("" if overload == "default" else f".{overload}")
        if lookup(name) is not spec:
            continue
        schema = getattr(packet, overload)._schema
        if any(argument.alias_info is not None for argument in schema.arguments):
            continue
        yield from _trials_of(spec, name, schema, compute, literals)


def _trials_of(
    spec: OpSpec, name: str, schema: Any, compute: torch.dtype, literals: Mapping[str, object]
) -> Iterator[Trial]:
    types = {argument.name: str(argument.type) for argument in schema.arguments}
    tensors: list[str] = []
    scalars: list[str] = []
    arguments: list[ir.Value] = []
    for parameter in spec.parameters:
        kind = types.get(parameter)
        if parameter in literals or kind is None:
            value = literals.get(parameter)
            arguments.append(
                ir.Literal(value if isinstance(value, (bool, int, float, str)) else None)
            )
        elif "Tensor" in kind and parameter in spec.runtime - spec.promoted:
            return  # a zero-dimensional tensor for a number
        elif "Tensor" in kind:
            arguments.append(ir.Load(len(tensors)))
            tensors.append(parameter)
        else:
            arguments.append(ir.RuntimeNumber(len(scalars)))
            scalars.append(parameter)
    if not tensors and spec.promotion != "result":
        return
    converted = spec.promotion == "result" and tensors and spec.name != "clone"
    for source in sorted(IN_KERNELS, key=str) if converted else [compute]:
        operands = tuple(torch.bool if p in spec.masks else source for p in tensors)
        result = compute
        if not converted:
            bare = ir.Statement(spec.name, (), compute, compute)
            fake = Trial(name, bare, tuple(tensors), tuple(scalars), operands, literals)
            example = [_own.ones(2, dtype=dtype) for dtype in operands]
            try:
                result = fake.eager(example, list(_SCALARS[kind_of(compute)][: len(scalars)])).dtype
            except (RuntimeError, IndexError):
                continue  # eager knows no such combination
            if source not in operands and result.is_floating_point and result is not compute:
                continue  # nothing in it has the dtype computed in
        statement = ir.Statement(spec.name, tuple(arguments), compute, result)
        yield Trial(name, statement, tuple(tensors), tuple(scalars), operands, literals)


def _choosing(spec: OpSpec, literals: Mapping[str, object]) -> dict[str, object]:
    """Return the literals that choose the formula; all others are like runtime values."""
    chosen = {name for rule in spec.rules for name in rule.literals} | spec.literals
    return {
        name: value
        for name, value in literals.items()
        if name in chosen and (name in spec.literals | spec.unless_one or value is None)
    }


def _rows_key(op: str, dtype: torch.dtype, columns: bool) -> Key:
    return f"{op} of {'columns' if columns else 'rows'}", dtype, ""


@dataclass(slots=True)
class Verifier:
    """What has been seen on this machine. One for each compiler; any thread may ask.

    Parameters
    ----------
    compile
        Compiles a form without asking whether it is exact; returns what runs it.
    lanes
        float32 elements in a vector of eager's; 0: there are none.
    verdicts
        What is known already.
    """

    compile: Compile
    lanes: int
    verdicts: Verdicts = field(default_factory=Verdicts)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def why_inexact(
        self,
        spec: OpSpec,
        rule: Rule | None,
        compute: torch.dtype,
        literals: Mapping[str, object],
        still: frozenset[str] = frozenset(),
        by_position: bool = False,
    ) -> str:
        """Return what is known against fusing an op, empty if nothing. Costs nothing: it tries nothing.

        What was never tried is tried when the first kernel with it is compiled.

        Parameters
        ----------
        rule
            The formula; None: why does the op have none?
        still
            See :func:`.exactness.inexact`.
        by_position
            The kernel minds where an element stands.
        """
        if rule is None:
            return no_formula(spec)
        if not by_position and (known := inexact(spec, rule, compute, still)):
            return known
        return SEEN if self.verdicts.differs(self._key(spec, compute, literals)) else ""

    def check(self, form: ir.KernelForm) -> None:
        """Verify all ops of a form.

        Raises
        ------
        CompileError
            If one of them does not agree with eager; :meth:`why_inexact` says so from now on.
        """
        for statement in form.statements:
            if isinstance(statement, ir.Reduction):
                columns = isinstance(statement.order, ir.ColumnOrder)
                if verdict := self.verify_rows(statement.op, statement.given, columns):
                    shape = "columns" if columns else "rows"
                    what = f"{statement.op} of {shape} of {statement.given}"
                    raise CompileError(f"on this machine {what} differs from eager: {verdict}")
                continue
            if statement.op in STEPS:
                continue  # tried with the reductions of its op
            spec = spec_of(statement.op)
            if spec is None:
                raise CompileError(f"no op named {statement.op!r} in the op table")
            literals = {
                name: argument.value
                for name, argument in zip(spec.parameters, statement.arguments, strict=True)
                if isinstance(argument, ir.Literal)
            }
            rule = spec.rule(statement.compute, literals)
            by_position = statement.functions is ir.Functions.POSITION
            minded = by_position and self.by_position(spec, statement.compute)
            if (
                rule is not None
                and not minded
                and (known := inexact(spec, rule, statement.compute))
            ):
                raise CompileError(f"{spec.name} on {statement.compute} is not exact: {known}")
            verdict = self.verify(spec, statement.compute, literals)
            if verdict:
                raise CompileError(
                    f"on this machine {spec.name} on {statement.compute} differs from eager: {verdict}"
                )
        with self.lock:
            self.verdicts.keep()

    def verify(self, spec: OpSpec, compute: torch.dtype, literals: Mapping[str, object]) -> str:
        """Try an op once; return where it differs from eager, empty if nowhere."""
        key = self._key(spec, compute, literals)
        return self._verdict(key, lambda: self._try(spec, compute, _choosing(spec, literals)))

    def by_position(self, spec: OpSpec, compute: torch.dtype) -> bool:
        """Return whether an op is exact where a kernel minds where elements stand, and only there."""
        return bool(self.lanes) and compute is torch.float32 and spec.name in BY_POSITION

    def order(
        self, op: str, operator: str, dtype: torch.dtype, columns: bool
    ) -> ir.Order | ir.ColumnOrder | None:
        """Return the order in which eager reduces rows, None if none is known; costs nothing, as :meth:`why_inexact`."""
        if self.verdicts.differs(_rows_key(op, dtype, columns)):
            return None
        return orders.order(op, operator, dtype, columns, self.lanes)

    def verify_rows(self, op: str, dtype: torch.dtype, columns: bool = False) -> str:
        """Try an op on rows, or on columns, once; return where it differs from eager, empty if nowhere."""
        key = _rows_key(op, dtype, columns)
        return self._verdict(
            key, lambda: attempt_rows(ROWS[op], dtype, columns, self.lanes, self.compile)
        )

    def _verdict(self, key: Key, attempt: Callable[[], str]) -> str:
        with self.lock:
            if (verdict := self.verdicts.get(key)) is None:
                try:
                    with torch.device("cpu"):
                        verdict = attempt()
                except (CompileError, RuntimeError, TypeError, ValueError) as error:
                    verdict = f"{type(error).__name__}: {error}"  # not tried is not trusted
                self.verdicts.put(key, verdict)
            return verdict

    @staticmethod
    def _key(spec: OpSpec, compute: torch.dtype, literals: Mapping[str, object]) -> Key:
        return spec.name, compute, repr(sorted(_choosing(spec, literals).items()))

    def _try(self, spec: OpSpec, compute: torch.dtype, literals: Mapping[str, object]) -> str:
        minded = self.by_position(spec, compute)
        functions = ir.Functions.POSITION if minded else ir.Functions.ARRAYS
        found = [
            replace(trial, statement=replace(trial.statement, functions=functions))
            for trial in trials(spec, compute, literals)
        ]
        found.sort(key=lambda trial: -len(trial.tensors))
        for trial in found if spec.promotion == "result" else found[:1]:
            with one_thread():
                verdict = self.attempt(trial)
            if verdict:
                return verdict
        return "" if found else f"eager knows no {spec.name} on {compute} to compare with"

    def attempt(self, trial: Trial) -> str:
        """Run one trial both ways; return where it differs, empty if nowhere."""
        kind = kind_of(trial.statement.compute)
        count = max(len(trial.tensors), 1)
        compute = trial.statement.compute
        many = _RANDOM if computed_in(compute) is compute else _RANDOM_SHORT
        tensors = [samples(dtype, count, 1, many)[i] for i, dtype in enumerate(trial.operands)]
        shortest = min((len(tensor) for tensor in tensors), default=511)
        tensors = [tensor[:shortest] for tensor in tensors]
        scalars = list(itertools.islice(itertools.cycle(_SCALARS[kind]), len(trial.scalars)))
        out = _own.empty(shortest, dtype=trial.statement.dtype)
        run = self.compile(trial.form(tuple(type(s) for s in scalars)))
        run((shortest,), tensors, scalars, out)
        whole = trial.eager(tensors, scalars)
        if not same_bits(whole, out):
            return self._where(trial, tensors, whole, out)
        if not tensors:
            return ""
        short = min(shortest, PIECES * PIECE)
        parts = [[tensor[at : at + PIECE] for tensor in tensors] for at in range(0, short, PIECE)]
        pieces = _own.cat([trial.eager(part, scalars) for part in parts])
        if trial.statement.functions is ir.Functions.POSITION:
            for at, part in enumerate(parts):
                end = out[at * PIECE : (at + 1) * PIECE]
                run((len(end),), part, scalars, end)
        if not same_bits(pieces, out[: len(pieces)]):
            return "in a short tensor, " + self._where(trial, tensors, pieces, out)
        return ""

    @staticmethod
    def _where(
        trial: Trial, tensors: list[torch.Tensor], eager: torch.Tensor, ours: torch.Tensor
    ) -> str:
        for i in range(len(eager)):
            if not same_bits(eager[i : i + 1], ours[i : i + 1]):
                given = ", ".join(repr(tensor[i].item()) for tensor in tensors)
                return f"{trial.overload} of {given} is {eager[i].item()!r}, the kernel gives {ours[i].item()!r}"
        return f"{trial.overload} gives {eager.dtype}, the kernel {ours.dtype}"
