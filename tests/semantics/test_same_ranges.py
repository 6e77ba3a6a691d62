"""Rule 4, numbers at and beyond what dtypes hold: an op raises where eager does, with every release of torch.

What eager refuses depends on the number, not only on its kind, and newer releases refuse more: since 2.15 bounds of a clamp.
So each op that may be deferred, and takes numbers, is tried with all of them.
"""

import math
import warnings

import pytest
import torch

DTYPES = (
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
)  # fmt: skip
NUMBERS = (
    1, 0, -1, 127, 128, -129, 255, 256, 40_000, 2**31, 2**40, -(2**40), 2**63 - 1,
    True, 0.5, 70_000.0, 1e39, 1e300, -1e300, math.nan, math.inf,
)  # fmt: skip
PLAIN = {"Tensor": None, "number": 1, "int": 0, "bool": False, "float": 1.0, "List[int]": [0]}
SHARES = 2


def ops_with_numbers():
    """Yield each op that may be deferred and takes numbers beside tensors, and the name of each number."""
    from torchy.record.policy import deferrable

    for name in sorted(deferrable()):
        packet = getattr(torch.ops.aten, name)
        for overload in packet.overloads():
            op = getattr(packet, overload)
            arguments = op._schema.arguments
            numbers = [a.name for a in arguments if str(a.type) in ("number", "Optional[number]")]
            plain = all(a.has_default_value() or known(a) for a in arguments)
            tensors = any(str(a.type) == "Tensor" for a in arguments)
            tensors = tensors and [str(r.type) for r in op._schema.returns] == ["Tensor"]
            if "out" not in overload and numbers and plain and tensors:
                yield from ((op, arguments, number) for number in numbers)


def known(argument):
    return str(argument.type) in PLAIN or str(argument.type).startswith("Optional")


def call(op, arguments, number, value, dtype):
    """Return what the op gives, or how it fails."""
    plain, named = [], {}
    for argument in arguments:
        kind = str(argument.type)
        if argument.name == number:
            given = value
        elif kind == "Tensor":
            given = torch.ones(4, dtype=dtype)
        elif argument.has_default_value():
            given = argument.default_value
        else:
            given = PLAIN.get(kind)
        if argument.kwarg_only:
            named[argument.name] = given
        else:
            plain.append(given)
    try:
        return op(*plain, **named)
    except (RuntimeError, TypeError, IndexError) as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("share", range(SHARES))
def test_ops_refuse_the_numbers_that_eager_refuses(share):
    import torchy

    warnings.simplefilter("ignore")  # of casts that lose something, by the thousand
    refused = 0
    for op, arguments, number in list(ops_with_numbers())[share::SHARES]:
        for dtype in DTYPES:
            eager = [call(op, arguments, number, value, dtype) for value in NUMBERS]
            with torchy.lazy(compile="never"):
                for value, expected in zip(NUMBERS, eager, strict=True):  # all at one place
                    found = call(op, arguments, number, value, dtype)
                    torchy.flush()  # nothing may be raised late
                    what = (op, number, value, dtype)
                    if isinstance(expected, str):
                        assert found == expected, what
                        refused += 1
                    else:
                        assert found.dtype == expected.dtype, what
                        assert torch.equal(bits(found), bits(expected)), what
    assert refused > 500


def bits(tensor):
    return tensor.contiguous().flatten().view(torch.uint8)
