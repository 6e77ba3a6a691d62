"""The short way: an op that comes where one was recorded is compared with that one, and not looked up.

Layouts tell which way an op goes: the long way looks for them in what its signature remembers, and learns them anew if
that has been forgotten; the short way does not need them.
"""

import pytest
import torch
from recording import counters, did, turn

import torchy

MOST = 512  # sets of sizes that a signature remembers


def gaps(size, dtype=torch.float32):
    """Return a tensor that is not contiguous: its sizes are part of what is expected."""
    return torch.ones(2 * size, dtype=dtype)[::2]


def forget_layouts(op, dtype=torch.float32):
    """Have an op come with so many other sizes that its signature forgets all that it has had."""
    for size in range(1000, 1000 + MOST):
        op(gaps(size, dtype))


def scaled(x):
    return x * 2.5


def short(session, body):
    """Tell whether all ops of a body go the short way."""
    done = turn(session, body)
    assert done.recorded > 0
    return done.layouts == 0


def test_a_known_op_is_compared_and_not_looked_up():
    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        for _ in range(2):
            turn(session, lambda: scaled(x))
        forget_layouts(scaled)
        assert short(session, lambda: scaled(x))
        assert did(session, lambda: scaled(x)).layouts == 1  # at another place it is unknown
        assert counters(session).policy_calls == 2  # the other one is that of turn()


UNMINDED = {
    "another storage": lambda x: scaled(torch.ones(4)),
    "another offset": lambda x: scaled(torch.ones(9)[3:7]),
    "another size": lambda x: scaled(torch.ones(5)),
    "another number": lambda x: x * 3.5,
    "a number that is not finite": lambda x: x * float("nan"),
    "a parameter without gradients": lambda x: scaled(torch.nn.Parameter(x, requires_grad=False)),
    "a line elsewhere": lambda x: x * 2.5,
}


@pytest.mark.parametrize("case", UNMINDED)
def test_what_need_not_be_the_same(case):
    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        turn(session, lambda: scaled(x))
        forget_layouts(scaled)
        assert short(session, lambda: UNMINDED[case](x))


MINDED = {
    "another stride": lambda: gaps(4),
    "one element": lambda: torch.ones(1),
}


@pytest.mark.parametrize("case", MINDED)
def test_what_has_changed_goes_the_long_way_and_is_known_then(case):
    x, other = torch.randn(4), MINDED[case]()
    with torchy.lazy(compile="never") as session:
        turn(session, lambda: scaled(x))
        assert not short(session, lambda: scaled(other))
        forget_layouts(scaled)
        for _ in range(2):
            assert short(session, lambda: scaled(other))
            assert short(session, lambda: scaled(x))


def test_another_dtype_is_another_place_and_does_not_disturb():
    x, double = torch.randn(4), torch.randn(4).double()
    with torchy.lazy(compile="never") as session:
        turn(session, lambda: scaled(x))
        assert turn(session, lambda: scaled(double)).places == 1
        forget_layouts(scaled)
        forget_layouts(scaled, torch.float64)
        for _ in range(2):
            for operand in (x, double):
                done = turn(session, lambda operand=operand: scaled(operand))
                assert (done.recorded, done.places, done.layouts) == (1, 0, 0)


def test_a_number_out_of_range_runs_now_where_others_are_known():
    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        for _ in range(3):
            assert turn(session, lambda: x * 2.5)[:2] == (1, 0)
            assert turn(session, lambda: x * 1e300)[:2] == (0, 1)


def test_a_write_to_what_has_another_tensor_runs_now():
    with torchy.lazy(compile="never") as session:
        for _ in range(3):
            x = torch.randn(4)
            assert turn(session, lambda x=x: x.mul_(2.5))[:2] == (1, 0)
            x = torch.randn(4)
            view = x[1:]
            assert turn(session, lambda x=x: x.mul_(2.5))[:2] == (0, 1)
            del view


STRETCHING = {
    "pointwise": lambda x: x * x,
    "with a number": lambda x: x * 2.5,
    "with a tensor without dimensions": lambda x: x * torch.tensor(2.5),
    "a comparison": lambda x: x < 0.5,
    "in place": lambda x: torch.zeros(x.shape).add_(x),
    "a softmax": lambda x: x.softmax(-1),
    "a sum of all": lambda x: x.sum(),
}


@pytest.mark.parametrize("case", STRETCHING)
def test_other_sizes_of_what_is_contiguous_are_known(case):
    op = STRETCHING[case]
    with torchy.lazy(compile="never") as session:
        for _ in range(2):
            turn(session, lambda: op(torch.ones(4, 5)))
        for sizes in [(5, 4), (2, 2), (9, 3), (40, 50), (4, 5)]:
            assert short(session, lambda sizes=sizes: op(torch.ones(sizes)))


FIXED = {
    "broadcast": lambda x: x * x[0],
    "a sum over a dimension": lambda x: x.sum(0),
    "a product": lambda x: x @ x.t(),
    "a transpose": lambda x: x.t() * 2.5,
}


@pytest.mark.parametrize("case", FIXED)
def test_other_sizes_of_other_ops_go_the_long_way(case):
    op = FIXED[case]
    with torchy.lazy(compile="never") as session:
        turn(session, lambda: op(torch.ones(4, 5)))
        assert not short(session, lambda: op(torch.ones(7, 6)))
        assert short(session, lambda: op(torch.ones(7, 6)))


def test_eight_sets_of_sizes_at_a_place_are_expected():
    operands = [gaps(size) for size in range(2, 10)]
    with torchy.lazy(compile="never") as session:
        for x in operands:
            assert turn(session, lambda x=x: scaled(x)).layouts == 1
        forget_layouts(scaled)
        for x in [*operands, *reversed(operands)]:
            assert short(session, lambda x=x: scaled(x))


def test_what_is_expected_is_bounded():
    operands = [gaps(size) for size in range(2, 42)]
    with torchy.lazy(compile="never") as session:
        for x in operands:
            turn(session, lambda x=x: scaled(x))
        forget_layouts(scaled)
        unknown = sum(not short(session, lambda x=x: scaled(x)) for x in operands)
    assert unknown >= len(operands) - 8


def test_which_of_two_views_of_one_storage_an_operand_is():
    x = torch.randn(20)
    with torchy.lazy(compile="never") as session:

        def product(at):
            return x[at : at + 4] * x[10:14]

        for _ in range(2):
            turn(session, lambda: product(0))
        for size in range(1000, 1000 + MOST):
            torch.ones(size) * torch.ones(size)
        assert short(session, lambda: product(0))
        assert not short(session, lambda: product(2))  # looked up: it is at the same place
        assert turn(session, lambda: product(2)).places == 0
        assert turn(session, lambda: product(10)).places == 1  # both are one view


def test_an_op_within_a_trace_is_known_too():
    x = torch.randn(4)

    def chain():
        y = x * 2.5
        return y.exp() - y

    with torchy.lazy(compile="never") as session:
        turn(session, chain)
        for op in (scaled, torch.exp, lambda y: y - y):
            forget_layouts(op)
        assert turn(session, chain)[:4] == (3, 0, 0, 0)


def test_ops_of_rare_signatures_are_looked_up_each_time():
    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        turn(session, lambda: torch.cat([x, x]))
        assert turn(session, lambda: torch.cat([x, x])).layouts == 0
        forget_layouts(lambda y: torch.cat([y, y]))
        assert turn(session, lambda: torch.cat([x, x]))[:4] == (1, 0, 0, 1)


def test_gradients_do_not_keep_an_op_from_being_known():
    w = torch.randn(4, requires_grad=True)
    with torchy.lazy(compile="never") as session:
        turn(session, lambda: scaled(w))
        forget_layouts(scaled)
        y = None

        def body():
            nonlocal y
            y = scaled(w)

        assert short(session, body)
        assert type(y.grad_fn).__name__ == "MulBackward0"


def test_an_op_under_a_dispatch_mode_goes_the_long_way():
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            seen.append(str(op))
            return op(*args, **(kwargs or {}))

    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        for _ in range(3):
            turn(session, lambda: scaled(x))
        with Watching():
            scaled(x)
    assert seen.count("aten.mul.Tensor") == 1
