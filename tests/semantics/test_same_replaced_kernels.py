"""Rules 1 and 3: kernels that a program puts in place of torch's own are what runs, until it takes them away."""

import contextlib

import pytest
import torch
from sameness import program, quiet, same
from tiers import TIERS


@contextlib.contextmanager
def replaced(key="CPU", **kernels):
    """Have kernels of the program's own serve torch's ops."""
    library = torch.library.Library("aten", "IMPL")
    with quiet():
        for name, kernel in kernels.items():
            library.impl(name.replace("__", "."), kernel, key)
    try:
        yield
    finally:
        library._destroy()


def filled(value):
    """Return a kernel that makes something else of its operand."""
    return lambda x, **_: x.new_full(x.shape, value)


def cosines():
    x = torch.arange(4.0)
    y = x * 2
    return x.cos(), y.cos_(), (x + 1).cos().tolist(), torch.cos(x, out=torch.zeros(4))


@program
def test_kernels_are_replaced_while_ops_are_pending():
    x = torch.arange(4.0)
    results = [x.cos(), x.sum()]
    early = x.cos() + 1, x.sum() * 2
    with replaced(cos=filled(42.0), sum=lambda x, *, dtype=None: x.new_full((), 7.0)):
        results += [x.cos(), x.sum(), *cosines()]
    return results, early, cosines()


@program
def test_a_kernel_is_replaced_by_one_that_returns_another_shape_and_dtype():
    x = torch.arange(4.0)
    with replaced(cos=lambda x: torch.ones(2, 3, dtype=torch.int64)):
        return [x.cos() + 1, *cosines()]


@program
def test_the_kernel_of_an_in_place_form_is_replaced():
    with replaced(exp_=lambda x: x.fill_(9.0)):
        x = torch.arange(4.0) * 1
        return x.exp(), x.exp_(), x + 1


@program
def test_how_often_a_replaced_kernel_is_called():
    calls = []

    def sigmoid(x):
        calls.append(tuple(x.shape))
        return x * 2

    with replaced(sigmoid=sigmoid):
        x = torch.ones(4) * 3
        return (x.sigmoid() + 1).sigmoid(), x.sigmoid().sum().item(), calls


@program
@pytest.mark.parametrize("key", ["CompositeExplicitAutograd", "AutogradCPU", "Autograd"])
def test_kernels_of_other_keys(key):
    x = torch.arange(4.0) * 1
    early = x.cos()
    with replaced(key, cos=filled(42.0)):
        results = [x.cos(), x.cos() * 2]
    return early, results, x.cos()


@TIERS
@pytest.mark.parametrize("key", ["CPU", "AutogradCPU"])
def test_kernels_are_replaced_between_regions(key, compile):
    same(cosines, compile=compile)
    for value in (42.0, 43.0):
        with replaced(key, cos=filled(value)):
            eager = same(cosines, compile=compile)[0]
            assert "42" in str(eager.after) or value != 42.0
        same(cosines, compile=compile)
    assert same(cosines, compile=compile)[-1].counters["run_now"] == 0
