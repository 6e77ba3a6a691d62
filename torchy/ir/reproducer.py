"""A trace as a Python script that rebuilds its inputs and runs its ops, without Torchy."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import torch

from torchy.ir.listing import source_text
from torchy.ir.trace import Argument, Layout, Number, Op, Operand, Trace

HEAD = '''\
"""One trace of Torchy, to be run without it: %d ops. The inputs are random, their layouts are not."""

import torch

torch.manual_seed(%d)


def storage(nbytes, dtype):
    """Return random values of a dtype: small ones, so that integers can be indices."""
    count = -(-nbytes // dtype.itemsize)
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(count, dtype=torch.float64).to(dtype)
    return torch.randint(0, 2, (count,)).to(dtype)


def window(base, dtype, sizes, strides, offset):
    """Return another view of the memory of a tensor."""
    return torch.empty(0, dtype=dtype).set_(base.untyped_storage(), offset, sizes, strides)

'''


def reproducer(
    trace: Trace,
    layouts: Sequence[Layout],
    numbers: Sequence[bool | int | float] = (),
    file_names: Mapping[str, str] = MappingProxyType({}),
    seed: int = 0,
) -> str:
    """Return a script that builds inputs with these layouts, runs the ops and prints what came out.

    Parameters
    ----------
    layouts, numbers
        Those of one recording: by view, and by number.
    file_names
        How to call files in the comments: see ``listing``.
    seed
        Of the random values of the inputs.
    """
    script = _Script(trace, layouts, numbers)
    lines: list[str] = []
    for op in trace.ops:
        for view in dict.fromkeys(op.reads):
            lines += script.introduce(view)
        source = source_text(op.source, file_names)
        lines.append(script.call(op) + (f"  # {source}" if source else ""))
        lines += script.results(op)
    written = sorted({view for op in trace.ops for view in op.writes})
    lines.append("")
    lines += [f'print("v{view}", v{view}.flatten()[:8].tolist())' for view in written]
    return HEAD % (len(trace.ops), seed) + "\n".join(["", *lines, ""])


class _Script:
    def __init__(
        self, trace: Trace, layouts: Sequence[Layout], numbers: Sequence[bool | int | float]
    ) -> None:
        self._trace = trace
        self._layouts = layouts
        self._numbers = numbers
        self._bases: dict[int, str] = {}  # by buffer: a tensor on its memory
        self._known: set[int] = set()  # views that have a name

    def introduce(self, view: int) -> Iterator[str]:
        """Give a name to a view that exists before the op that reads it."""
        if view in self._known:
            return
        buffer = self._trace.buffer_of(view)
        if buffer not in self._bases:
            self._bases[buffer] = f"b{buffer}"
            dtypes = [view.dtype for view in self._trace.views if view.buffer == buffer]
            dtype = next((d for d in dtypes if d.is_floating_point), dtypes[0])
            yield f"b{buffer} = storage({self._nbytes(buffer)}, {dtype})"
        self._known.add(view)
        yield self._window(view)

    def call(self, op: Op) -> str:
        """Return the line that runs an op."""
        names = []
        for view in op.results:
            fresh = view is not None and view not in self._known
            names.append(f"v{view}" if fresh else "_")
        target = f"{', '.join(names)} = " if any(name != "_" for name in names) else ""
        return f"{target}{_callee(op.name)}({', '.join(self._arguments(op))})"

    def results(self, op: Op) -> Iterator[str]:
        """Note which views an op has made; name those that it wrote without returning them."""
        for view in op.results:
            if view is not None:
                self._known.add(view)
                self._bases.setdefault(self._trace.buffer_of(view), f"v{view}")
        for view in op.writes:
            if view not in self._known and self._trace.buffer_of(view) in self._bases:
                self._known.add(view)
                yield self._window(view)

    def _window(self, view: int) -> str:
        layout = self._layouts[view]
        dtype = self._trace.views[view].dtype
        base = self._bases[self._trace.buffer_of(view)]
        place = f"{layout.sizes}, {layout.strides}, {layout.offset}"
        return f"v{view} = window({base}, {dtype}, {place})"

    def _arguments(self, op: Op) -> Iterator[str]:
        for (name, is_keyword), argument in zip(_parameters(op.name), op.arguments, strict=False):
            text = self._argument(argument)
            yield f"{name}={text}" if is_keyword else text

    def _argument(self, argument: Argument) -> str:
        if isinstance(argument, tuple):
            return f"[{', '.join(self._argument(item) for item in argument)}]"
        if isinstance(argument, Operand):
            return f"v{argument.view}"
        if isinstance(argument, Number):
            text = _value(self._numbers[argument.index])
            return text if argument.wrapped else f"torch.tensor({text})"
        return _value(argument.value)

    def _nbytes(self, buffer: int) -> int:
        """Return how much of a buffer its views reach."""
        return max(
            _reach(self._layouts[view.index]) * view.dtype.itemsize
            for view in self._trace.views
            if view.buffer == buffer
        )


def _reach(layout: Layout) -> int:
    """Return how many elements of a buffer lie up to the last one of a view."""
    if 0 in layout.sizes:
        return layout.offset
    steps = zip(layout.sizes, layout.strides, strict=True)
    return layout.offset + 1 + sum((size - 1) * stride for size, stride in steps)


def _value(value: object) -> str:
    """Return a Python value as source text."""
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return f'float("{value}")'
    return f'torch.device("{value}")' if isinstance(value, torch.device) else repr(value)


def _callee(name: str) -> str:
    namespace, _, rest = name.partition("::")
    base, _, overload = rest.partition(".")
    return f"torch.ops.{namespace}.{base}.{overload or 'default'}"


@functools.cache
def _parameters(name: str) -> tuple[tuple[str, bool], ...]:
    """Return an op's parameters in the order of its schema; True for keyword-only ones."""
    base, _, overload = name.partition(".")
    schema = torch._C._get_schema(base, overload)
    return tuple((argument.name, argument.kwarg_only) for argument in schema.arguments)
