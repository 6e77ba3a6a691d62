"""What happens with an op when it is first met: defer, view (metadata only), descend, or run now."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from torchy.ir.ops import ROWS, SPECS, Indices, OpSpec, lookup
from torchy.record.codes import LayoutRule, OpClass
from torchy.record.places import Place

# What :class:`.Indices` says, by the arguments' numbers: the argument, into which, which one tells the dimension, or the
# dimension itself, and which one is ignored. -1: none.
NO_INDICES = (-1, -1, -1, 0, -1)


class Classification(NamedTuple):
    """What the walker needs to know of an op, once."""

    op_class: OpClass
    pointwise: bool = False
    rule: LayoutRule = LayoutRule.LEARN
    minds_precision: bool = True  # it may take shortcuts where float32 products need not be precise
    runtime: int = 0  # a bit for each argument whose value is not part of the place
    unless_one: int = 0  # for those of them whose being one is
    hidden: int = 0  # a bit for each argument that is written to without the schema saying so
    indices: tuple[int, int, int, int, int] = NO_INDICES
    asks: bool = False  # whether :func:`allow` has a say
    fusable: bool = False  # whether a plan may find a kernel for it


RUN_NOW = Classification(OpClass.RUN_NOW)
METADATA = Classification(OpClass.METADATA)

# Read nothing of their tensor but sizes, strides, dtype and device; or return a view without saying so.
METADATA_ONLY = frozenset(
    """
    empty_like zeros_like ones_like full_like rand_like randn_like randint_like new_empty
    new_empty_strided new_zeros new_ones new_full _unsafe_view _reshape_alias is_same_size
    """.split()
)

# Pointwise ops, or overloads, whose kernel does not lay out its result as TensorIterator would.
OTHER_LAYOUT = {
    "masked_fill": LayoutRule.CONTIGUOUS,
    "pow.Scalar": LayoutRule.CONTIGUOUS,
    "clone": LayoutRule.PRESERVE,
    "_to_copy": LayoutRule.PRESERVE,
}
# of complex operands: computed as complex numbers, whose real parts are copied
COMPLEX_LAYOUT = {"angle": LayoutRule.CONTIGUOUS}
# functional forms that first copy what they then write over: their lines are the in-place forms'
COPIES_FIRST = frozenset({"copy", "zero", "fill"})
COPIES = frozenset({"_to_copy", "clone"})  # which may be asked for another layout
# with a zero-dimensional tensor for a number: their kernels read it
TAKES_ITEM = frozenset({"masked_fill", "masked_fill_", "fill", "fill_"})
# ops on lists that hand a tensor with the number on to the plain op; others take the number out of it
PASSES_SCALAR_ON = frozenset({"_foreach_mul", "_foreach_div"})
# made of ops that are recorded in their place
MADE_OF_OTHERS = frozenset({"allclose", "_is_all_true", "_is_any_true", "_safe_softmax"})
# fill a tensor with random numbers, which the walker can draw faster, to eager's bits
DRAWS = frozenset(
    {"aten::bernoulli_.float", "aten::bernoulli_.Tensor", "aten::uniform_", "aten::normal_"}
)
# make a tensor, and have one of those fill it
DRAWN = frozenset(
    f"aten::{name}"
    for name in "rand_like rand_like.generator randn_like randn_like.generator bernoulli bernoulli.p".split()
)
# made of `masked_fill_` where their only index is a mask and their value a single number
MASKS = frozenset({"aten::index_put", "aten::index_put_", "aten::_index_put_impl_"})
# change the memory of their first argument, though their schemas do not say that they write to it
HIDDEN_WRITERS = frozenset({"aten::_lazy_clone", "inductor::resize_storage_bytes_"})
CONTIGUOUS_FORMAT, PRESERVE_FORMAT = 0, 1  # c10::MemoryFormat
# why an op that torch has tagged so is never deferred
WHY_TAGGED = {
    torch.Tag.nondeterministic_seeded: "random numbers keep their order",
    torch.Tag.dynamic_output_shape: "how large its result is depends on values",
    torch.Tag.data_dependent_output: "its result is a value for Python",
}


def classify(name: str) -> Classification:
    """Decide about an op by its name, as the dispatcher spells it: ``aten::add.Tensor``."""
    namespace, _, rest = name.partition("::")
    base, _, overload = rest.partition(".")
    if name in HIDDEN_WRITERS:
        return RUN_NOW._replace(hidden=1)
    if namespace != "aten":
        return RUN_NOW
    schema = torch._C._get_schema(name.partition(".")[0], overload)
    if name in DRAWS:
        return Classification(OpClass.DRAW)
    if name in DRAWN:
        return Classification(OpClass.DESCEND)
    if name in MASKS:
        return Classification(OpClass.MASK)
    if is_view(schema) or base in METADATA_ONLY:
        return METADATA
    if base.startswith("_foreach_"):
        # its kernel on the CPU runs the plain op on each tensor; with a tensor of scalars it may read memory
        scalars = any(str(a.type) == "Tensor" and a.name != "self" for a in schema.arguments)
        reads = scalars and base.rstrip("_") not in PASSES_SCALAR_ON
        return RUN_NOW if reads else Classification(OpClass.DESCEND)
    if base in MADE_OF_OTHERS:
        return Classification(OpClass.DESCEND)
    spec = lookup(name)
    if spec is None or base in COPIES_FIRST:
        return RUN_NOW
    names = [argument.name for argument in schema.arguments]
    pointwise = spec.kind == "pointwise"
    return Classification(
        OpClass.DEFER,
        pointwise,
        _layout_rule(base, overload) if pointwise else LayoutRule.LEARN,
        spec.minds_precision,
        _bits(names, spec.runtime),
        _bits(names, spec.unless_one),
        _bits(names, frozenset(spec.hidden_writes)),
        _numbers_of(spec.indices, names),
        _may_refuse(spec, base, overload),
        pointwise or spec.name in ROWS,
    )


def deferrable() -> frozenset[str]:
    """Return the names of the ops that may be deferred, or drawn, without overloads."""
    known = frozenset(name for name in SPECS if hasattr(torch.ops.aten, name))
    others = {
        "index_put",
        *(name.removeprefix("aten::").partition(".")[0].rstrip("_") for name in DRAWS | DRAWN),
    }
    return known | MADE_OF_OTHERS | others


def _may_refuse(spec: OpSpec, base: str, overload: str) -> bool:
    """Tell whether :func:`allow` may say anything else of an op than that it may be deferred."""
    takes_item = overload == "Tensor" and base in TAKES_ITEM
    return bool(base in COPIES or base in COMPLEX_LAYOUT or spec.raises_on_data or takes_item)


def _layout_rule(base: str, overload: str) -> LayoutRule:
    rule = OTHER_LAYOUT.get(f"{base}.{overload}") or OTHER_LAYOUT.get(base)
    return rule or LayoutRule.ITERATE


def _numbers_of(indices: Indices | None, names: list[str]) -> tuple[int, int, int, int, int]:
    if indices is None:
        return NO_INDICES
    dimension = indices.dimension
    return (
        names.index(indices.argument),
        names.index(indices.into),
        names.index(dimension) if isinstance(dimension, str) else -1,
        dimension if isinstance(dimension, int) else 0,
        names.index(indices.ignored) if indices.ignored else -1,
    )


def _bits(names: list[str], wanted: frozenset[str]) -> int:
    return sum(1 << index for index, name in enumerate(names) if name in wanted)


def is_view(schema: Any) -> bool:
    """Tell whether an op returns an alias of its only tensor and touches no memory."""
    tensors = [a for a in schema.arguments if "Tensor" in str(a.type)]
    if len(tensors) != 1 or schema.name.startswith(("aten::_nested", "aten::_sparse")):
        return False
    aliases = [r.alias_info for r in schema.returns]
    return bool(aliases) and all(alias is not None and not alias.is_write for alias in aliases)


def why_now(name: str) -> str:
    """Return in words why an op is never deferred."""
    namespace, _, rest = name.partition("::")
    if namespace != "aten":
        return "it is not one of torch's own ops"
    base, _, overload = rest.partition(".")
    tags = getattr(getattr(torch.ops.aten, base), overload or "default").tags
    for tag, words in WHY_TAGGED.items():
        if tag in tags:
            return words
    if base in METADATA_ONLY:
        return "it makes a tensor and reads none: nothing to wait for"
    return "Torchy does not know how to defer it"


def allow(place: Place) -> int:
    """Decide whether a deferrable op may be deferred with these constants; asked where :attr:`.Classification.asks`.

    Legality of dtypes is learned by the walker, which tries the real op; this is about arguments
    that the plan cannot express, or that change how the result lies in memory.

    Returns
    -------
    int
        0: run now. 1: defer, layouts by the op's own rule. 2 + a :class:`LayoutRule`: by that.
    """
    name, _, overload = place.name.partition(".")
    base = name.partition("::")[2]
    if base in COPIES:
        names = [argument.name for argument in torch._C._get_schema(name, overload).arguments]
        for argument, value in zip(names, place.arguments, strict=True):
            if argument in ("layout", "device", "pin_memory") and value is not None:
                return 0
            if argument == "memory_format" and value not in (None, PRESERVE_FORMAT):
                contiguous = value == CONTIGUOUS_FORMAT
                return 2 + (LayoutRule.CONTIGUOUS if contiguous else LayoutRule.LEARN)
    if base in COMPLEX_LAYOUT and place.dtypes[0].is_complex:
        return 2 + COMPLEX_LAYOUT[base]
    spec = lookup(place.name)
    if spec is not None and spec.raises_on_data and not _floating(place):
        return 0
    if overload == "Tensor" and base in TAKES_ITEM:
        first, *_, last = place.dtypes  # eager raises for a value that the dtype cannot hold
        return int(first == last)
    return 1


def _floating(place: Place) -> bool:
    """Tell whether an op computes in floating point: an operand, or a number, is floating."""
    operands = any(dtype.is_floating_point for dtype in place.dtypes)
    return operands or any(isinstance(value, float) for value in place.arguments)
