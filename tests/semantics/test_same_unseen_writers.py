"""Rules 4 and 6, writers that the walker does not see: what a pending op reads is read before it is overwritten.

Each program records ops on a tensor, has its memory overwritten (or replaced) from elsewhere, and looks only then.
"""

import contextlib
import copy
import ctypes
import functools
import gc
import os
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

import numpy
import pytest
import torch
from sameness import program, quiet
from tiers import TIERS

from torchy.record.building import compiler


def in_thread(function):
    """Run a function in a thread, to its end."""
    errors = []

    def run():
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


# what overwrites a tensor of four floats, in place
WRITERS = {
    "op": lambda x: x.fill_(9),
    "out": lambda x: torch.add(torch.ones(4), 8, out=x),
    "view": lambda x: x[1:].mul_(-1),
    "data": lambda x: x.data.zero_(),
    "detached": lambda x: x.detach().neg_(),
    "numpy": lambda x: x.numpy().fill(9),
    "numpy_of_a_view": lambda x: numpy.negative(x[1:].numpy(), out=x[1:].numpy()),
    "dlpack": lambda x: torch.from_dlpack(x).fill_(9),
    "capsule": lambda x: torch.utils.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(x)).fill_(9),
    "numpy_from_dlpack": lambda x: ctypes.memset(numpy.from_dlpack(x).ctypes.data, 0, 8),
    "pointer": lambda x: ctypes.memset(x.data_ptr(), 0, 8),
    "pointer_of_a_view": lambda x: ctypes.memset(x[2:].data_ptr(), 0, 8),
    "memoryview": lambda x: memoryview(x.numpy()).__setitem__(0, 9.0),
    "storage_fill": lambda x: x.untyped_storage().fill_(0),
    "storage_copy": lambda x: x.untyped_storage().copy_(torch.ones(4).untyped_storage()),
    "storage_item": lambda x: x.untyped_storage().__setitem__(3, 64),
    "typed_storage_item": lambda x: x.storage().__setitem__(1, 5.0),
    "typed_storage_fill": lambda x: x.storage().fill_(5.0),
    "storage_resized": lambda x: x.untyped_storage().resize_(32),
    "storage_emptied": lambda x: x.resize_(0).untyped_storage().resize_(0),
    "set_to_another": lambda x: x.set_(torch.ones(4)),
    "set_on_its_storage": lambda x: torch.empty(0).set_(x.untyped_storage(), 0, (4,)).fill_(9),
    "strided": lambda x: torch.as_strided(x, (2,), (2,)).fill_(9),
    "shared": lambda x: x.share_memory_().fill_(9),
    "storage_shared": lambda x: x.untyped_storage().share_memory_().fill_(0),
    "foreach": lambda x: torch._foreach_add_([x, torch.ones(2)], 1),
    "random": lambda x: x.uniform_(),
    "index": lambda x: x.__setitem__(torch.tensor([0, 2]), 7.0),
    "another_type": lambda x: x.view(torch.int32).fill_(7),
}


@program
@pytest.mark.parametrize("writer", WRITERS)
def test_an_input_is_overwritten(writer):
    x = torch.arange(4.0)
    y = x * 2 + 1
    with quiet():
        WRITERS[writer](x)
    return y, y + 1, x + 0, x


@program(slow=("never",))
@pytest.mark.parametrize("writer", WRITERS)
def test_an_input_is_overwritten_by_another_thread(writer):
    x = torch.arange(4.0)
    y = x * 2 + 1
    with quiet():
        in_thread(lambda: WRITERS[writer](x))
    return y, y + 1, x + 0, x


@program
@pytest.mark.parametrize("writer", WRITERS)
def test_a_result_is_overwritten(writer):
    x = torch.arange(4.0) * 3
    y = x * 2 + 1
    with quiet():
        WRITERS[writer](x)
    z = x + y
    return y, z, x


@program(slow=("never",))
@pytest.mark.parametrize("writer", WRITERS)
def test_a_result_that_was_written_in_place_is_overwritten_by_another_thread(writer):
    x = torch.arange(4.0)
    y = x * 2
    x.add_(1)
    z = x * y
    with quiet():
        in_thread(lambda: WRITERS[writer](x))
    return y, z, x * 2, x


@program(given=lambda: torch.arange(4.0))
@pytest.mark.parametrize("writer", WRITERS)
def test_an_input_older_than_the_session_is_overwritten(x, writer):
    view = x[1:]
    y = view * 2 + 1
    with quiet():
        WRITERS[writer](x)
    return y, x + 0


# writers that took hold of the memory within the session, and write when ops are pending on it
HOLDERS = {
    "numpy": lambda x: x.numpy().fill,
    "numpy_of_a_view": lambda x: x[1:3].numpy().fill,
    "memoryview": lambda x: clearing(memoryview(x.numpy()).cast("B")),
    "dlpack": lambda x: torch.from_dlpack(x).fill_,
    "numpy_from_dlpack": lambda x: zeroing(numpy.from_dlpack(x).ctypes.data),
    "pointer": lambda x: zeroing(x.data_ptr()),
    "pointer_of_a_view": lambda x: zeroing(x[2:].data_ptr()),
    "pointer_of_the_storage": lambda x: zeroing(x.untyped_storage().data_ptr()),
    "from_address": lambda x: clearing((ctypes.c_byte * 16).from_address(x.data_ptr())),
    "array_interface": lambda x: numpy.asarray(Interface(x.numpy())).fill,
    "storage": lambda x: x.untyped_storage().fill_,
    "typed_storage": lambda x: x.storage().fill_,
    "set": lambda x: torch.empty(0).set_(x).fill_,
    "set_on_its_storage": lambda x: torch.empty(0).set_(x.untyped_storage(), 0, (4,)).fill_,
    "alias": lambda x: x.detach().view(2, 2).t().fill_,
    "data": lambda x: x.data[::2].fill_,
    "parameter": lambda x: torch.nn.Parameter(x).data.fill_,
}


def zeroing(address):
    """Return a function that clears two floats in memory as C code would."""
    return lambda value: ctypes.memset(address, 0, 8)


def clearing(memory):
    """Return a function that clears two floats in a buffer of Python's."""
    return lambda value: memory.__setitem__(slice(0, 8), bytes(8))


class Interface:
    """Something with NumPy's array interface, and nothing else."""

    def __init__(self, array):
        self.array = array
        self.__array_interface__ = array.__array_interface__


@program
@pytest.mark.parametrize("holder", HOLDERS)
def test_what_holds_the_memory_writes_later(holder):
    x = torch.arange(4.0) * 3
    with quiet():
        write = HOLDERS[holder](x)
        y = x * 2
        write(0)
        z = x + y
        x.add_(1)
        w = x * 3
        write(7)
    return y, z, w, x


@program
@pytest.mark.parametrize("holder", HOLDERS)
def test_what_holds_the_memory_of_an_input_writes_from_another_thread(holder):
    x = torch.arange(4.0)
    with quiet():
        write = HOLDERS[holder](x)
        y = x * 2
        in_thread(lambda: write(0))
        z = x + y
        x.mul_(y + 1)
        in_thread(lambda: write(7))
    return y, z, x


# writers that took hold of the memory before the session; DLPack and raw pointers are among the README's limits
BEFORE = [
    name
    for name in HOLDERS
    if "pointer" not in name and name not in ("from_address", "numpy_from_dlpack")
]


@TIERS
@pytest.mark.parametrize("holder", BEFORE)
def test_what_held_the_memory_before_the_session_writes_within(holder, compile):
    import torchy

    def run(session):
        x, seen = torch.arange(4.0), []
        with quiet():
            write = HOLDERS[holder](x)
            with session:
                for value in (3, 5, 0):
                    y = x * 2
                    write(value)
                    z = x + y
                    seen += [y.tolist(), z.tolist(), x.tolist()]
        return seen

    assert run(torchy.lazy(compile=compile)) == run(contextlib.nullcontext())


@program
def test_a_finalizer_writes():
    x = torch.arange(4.0) * 2
    held = x.numpy()

    class Last:
        def __del__(self):
            held.fill(-1)

    last = Last()
    y = x + 1
    del last
    return y, x + 1


@program
def test_a_finalizer_of_a_cycle_writes_with_torch():
    x = torch.arange(4.0)

    class Last:
        def __del__(self):
            x.fill_(-1)

    last = Last()
    last.itself = last
    y = x + 1
    del last
    gc.collect()
    return y, x + 1


@program
def test_a_signal_handler_writes():
    x = torch.arange(4.0)
    before = signal.signal(signal.SIGUSR1, lambda *_: x.numpy().fill(-1))
    try:
        y = x + 1
        os.kill(os.getpid(), signal.SIGUSR1)
        for _ in range(3):
            y = y * 2
    finally:
        signal.signal(signal.SIGUSR1, before)
    return y, x + 1


# compiled code


@program
def test_a_scripted_function_writes():
    @torch.jit.script
    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.add_(y)
        x[0] = 7
        return x * y

    x, w = torch.arange(4.0), torch.arange(4.0) * 2
    y, z = x * 2, w + 1
    with quiet():
        u, v = step(x, y), step(w, z)
    return x, y, z, w, u, v


@program
def test_a_traced_module_writes_its_buffer():
    class Counting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(2))

        def forward(self, x):
            self.count.add_(1)
            return x * self.count

    with quiet():
        traced = torch.jit.trace(Counting(), torch.ones(2), check_trace=False)
        before = traced.count + 1
        y = traced(torch.ones(2) * 3)
        z = traced(y)
    return before, y, z, traced.count * 2


SOURCE = 'extern "C" void twice(float *x, long n) { for (long i = 0; i < n; ++i) x[i] *= 2; }\n'


@functools.cache
def twice():
    """Return a function of C that doubles floats in memory."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "twice.cpp", Path(folder) / "twice.so"
        source.write_text(SOURCE)
        subprocess.run([compiler(), "-O1", "-shared", "-fPIC", source, "-o", library], check=True)
        function = ctypes.CDLL(str(library)).twice
    function.argtypes = [ctypes.c_void_p, ctypes.c_long]
    return function


@program
def test_a_function_of_c_writes():
    double = twice()
    x = torch.arange(4.0)
    y = x * 2
    double(x.data_ptr(), 4)
    z = x + y
    double(z[1:].data_ptr(), 2)
    double(y.data_ptr(), 4)
    return x, y, z, z * 2


@program
def test_a_function_of_c_writes_on_another_thread_while_ops_are_recorded():
    double = twice()
    x = torch.arange(4.0) * 1
    address = x.data_ptr()
    seen = []
    for _ in range(3):
        y = x + 1
        in_thread(lambda: double(address, 4))
        seen.append((y, x * y))
        x.add_(1)
    return seen, x


@pytest.mark.slow
@pytest.mark.seconds(300)
@program(times=2)
def test_a_compiled_function_writes():
    def step(x, y):
        x.add_(y)
        return (x * y).sin()

    compiled = torch.compile(step, dynamic=False)
    x, w = torch.arange(4.0), torch.arange(4.0) * 2
    y, z = x * 2, w + 1
    with quiet():
        u, v = compiled(x, y), compiled(w, z)
    return x, y, z, w, u, v


# aliases that torch does not tell of


@program
def test_the_values_of_a_sparse_tensor_are_written():
    x = torch.eye(3) * 2
    sparse = x.to_sparse()
    values = sparse._values()
    y = values + 1
    sparse._values().mul_(3)
    z = values + y
    sparse.mul_(2)
    w = values * 2
    values.add_(1)
    return x, y, z, w, values, sparse.to_dense()


@program
def test_the_values_of_a_compressed_tensor_are_written():
    with quiet():
        sparse = (torch.eye(3) * 2).to_sparse_csr()
    values = sparse.values()
    y = values + 1
    sparse.values().mul_(3)
    z = values * y
    values.add_(1)
    return y, z, sparse.to_dense(), sparse @ torch.ones(3)


@program
def test_a_quantized_tensor_and_its_integers():
    x = torch.arange(4.0)
    with quiet():
        q = torch.quantize_per_tensor(x * 2, 0.5, 10, torch.quint8)
    integers = q.int_repr()
    y = integers + 1
    q.copy_(torch.zeros(4))
    z = q.int_repr() + y
    integers.add_(3)
    x.fill_(9)
    return y, z, integers, q.dequantize() + 1, q.int_repr()


@program
def test_real_and_imaginary_parts_are_written():
    x = torch.arange(4.0) * 2
    c = torch.complex(x, x + 1)
    y = c.real + 1
    torch.view_as_real(c).numpy()[..., 0] = -5
    z = c.real + y
    c.imag.add_(1)
    return x, y, z, c, c.conj() * 1


@program
def test_copies_of_objects_share_what_they_shared():
    x = torch.arange(4.0) * 2
    pair = {"x": x, "view": x[1:]}
    y = x + 1
    shallow = copy.copy(x)
    deep = copy.deepcopy(pair)
    shallow.numpy().fill(3)
    deep["x"].numpy().fill(4)
    return y, x + 0, shallow, deep, pair
