"""Rules 1 and 3: a result has eager's bits, and lies in memory as eager's does, however its operands lie."""

import itertools

import pytest
import torch
from sameness import quiet

SIZES = (2, 3, 4)
LAYOUTS = {
    "contiguous": lambda t: t.contiguous(),
    "transposed": lambda t: t.transpose(0, 2).contiguous().transpose(0, 2),
    "permuted": lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),
    "expanded": lambda t: t[:, :1].contiguous().expand(SIZES),
    "strided": lambda t: torch.stack([t, t], -1)[..., 0],
}
DTYPES = {
    "float": lambda t, number: t,
    "integer": lambda t, number: (t * 10).long(),
    "bool": lambda t, number: t > 0.7,
    "mixed": lambda t, number: t > 0.7 if number == 0 else t,
    "wider": lambda t, number: t if number == 0 else t.double(),
    "narrower": lambda t, number: t.double() if number == 0 else t,
    "halves": lambda t, number: t.half() if number == 0 else t.bfloat16(),
    "complex": lambda t, number: torch.complex(t, t - 0.7),
    "complex first": lambda t, number: torch.complex(t, t - 0.7) if number == 0 else t,
    "complex last": lambda t, number: t if number == 0 else torch.complex(t, t - 0.7),
}
SHARES = 6
EACH_SHARE = pytest.mark.parametrize(
    "share", [pytest.param(n, marks=[pytest.mark.slow] if n else []) for n in range(SHARES)]
)


def pointwise_ops():
    """Return the ops that are deferred as pointwise and make fresh results."""
    from torchy.record.policy import OpClass, classify

    found = []
    for name in sorted(torch._C._dispatch_get_all_op_names()):
        if not name.startswith("aten::"):
            continue
        base, _, overload = name.partition(".")
        arguments = torch._C._get_schema(base, overload).arguments
        verdict = classify(name)
        writes = any(a.alias_info is not None and a.alias_info.is_write for a in arguments)
        if verdict.op_class is OpClass.DEFER and verdict.pointwise and not writes:
            namespace = getattr(torch.ops.aten, base.partition("::")[2])
            found.append((getattr(namespace, overload or "default"), arguments))
    return found


def plain_value(argument):
    """Return a value for an argument that is no tensor."""
    if argument.default_value is not None:
        return argument.default_value
    return {"number": 0.5, "float": 0.5, "int": 1, "bool": True, "str": "none"}.get(
        str(argument.type)
    )


def calls(arguments):
    """Yield operands of each dtype in each combination of layouts."""
    tensors = [a.name for a in arguments if str(a.type) in ("Tensor", "Optional[Tensor]")]
    generator = torch.Generator().manual_seed(0)
    given = {name: torch.rand(SIZES, generator=generator) + 0.2 for name in tensors}
    for dtype, layouts in itertools.product(
        DTYPES, itertools.product(LAYOUTS, repeat=len(tensors))
    ):
        made = {
            name: LAYOUTS[layout](DTYPES[dtype](given[name], number))
            for number, (name, layout) in enumerate(zip(tensors, layouts, strict=True))
        }
        values = [made[a.name] if a.name in made else plain_value(a) for a in arguments]
        plain = [v for v, a in zip(values, arguments, strict=True) if not a.kwarg_only]
        named = {a.name: v for v, a in zip(values, arguments, strict=True) if a.kwarg_only}
        yield (dtype, *layouts), plain, named


@EACH_SHARE
def test_results_of_all_pointwise_ops_for_all_layouts_of_operands(share):
    import torchy

    compared = 0
    for op, arguments in pointwise_ops()[share::SHARES]:
        for what, plain, named in calls(arguments):
            with quiet():
                try:
                    expected = op(*plain, **named)
                except (RuntimeError, TypeError, NotImplementedError):
                    continue  # not for these dtypes
                with torchy.lazy(compile="never"):
                    results = [op(*plain, **named) for _ in range(2)]
            compared += 1
            for result in results:
                assert (result.stride(), result.dtype) == (expected.stride(), expected.dtype), (
                    op,
                    what,
                )
                assert torch.equal(result.nan_to_num(), expected.nan_to_num()), (op, what)
    assert compared > 500


ROWS = 4
LENGTHS = (1, 2, 5, 9, 13, 31)  # with a part of a vector, or none, at the end of a row
SIZES_OF = {"full": lambda n: (ROWS, n), "row": lambda n: (n,), "column": lambda n: (ROWS, 1)}


def broadcast_operands(names, sizes, length, dtype):
    """Return operands, each of which has all elements, one row, or one column."""
    generator = torch.Generator().manual_seed(length)
    made = {}
    for name, size in zip(names, sizes, strict=True):
        values = torch.rand(SIZES_OF[size](length), generator=generator, dtype=dtype) * 2 - 0.5
        made[name] = values > 0.3 if name in ("condition", "mask") else values
    return made


@EACH_SHARE
def test_results_of_all_pointwise_ops_for_operands_that_are_broadcast(share):
    import torchy

    compared = 0
    for number, (op, arguments) in enumerate(pointwise_ops()[share::SHARES]):
        names = [a.name for a in arguments if str(a.type) in ("Tensor", "Optional[Tensor]")]
        scalars = {a.name: 0.7 for a in arguments if str(a.type) == "number"}
        dtype = (torch.float32, torch.float64)[number % 2]
        for sizes, length in itertools.product(
            itertools.product(SIZES_OF, repeat=len(names)), LENGTHS
        ):
            made = broadcast_operands(names, sizes, length, dtype) | scalars
            values = [made[a.name] if a.name in made else plain_value(a) for a in arguments]
            plain = [v for v, a in zip(values, arguments, strict=True) if not a.kwarg_only]
            named = {a.name: v for v, a in zip(values, arguments, strict=True) if a.kwarg_only}
            try:
                expected = op(*plain, **named)
            except (RuntimeError, NotImplementedError):
                break  # not for floats
            with torchy.lazy(compile="always"):
                result = op(*plain, **named)
            compared += 1
            assert torch.equal(result.nan_to_num(nan=7.0), expected.nan_to_num(nan=7.0)), (
                op,
                sizes,
                length,
            )
    assert compared > 100
