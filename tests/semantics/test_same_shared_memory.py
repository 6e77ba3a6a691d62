"""Rule 4, memory that others write to by right: Python's buffers, mapped files, other processes."""

import array
import ctypes
import multiprocessing
import os
import tempfile
from multiprocessing import shared_memory
from pathlib import Path

import numpy
import pytest
import torch
from sameness import program, quiet


def in_child(function):
    """Run a function in a forked process, to its end; return its status."""
    child = os.fork()
    if child == 0:
        try:
            function()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


class Interface:
    """Something with NumPy's array interface, and nothing else."""

    def __init__(self, array):
        self.array = array
        self.__array_interface__ = array.__array_interface__


# memory that is Python's own


def of_bytearray():
    memory = bytearray(numpy.arange(4, dtype=numpy.float32).tobytes())
    return torch.frombuffer(memory, dtype=torch.float32), memoryview(memory)


def of_asarray():
    memory = bytearray(numpy.arange(4, dtype=numpy.float32).tobytes())
    return torch.asarray(memory, dtype=torch.float32), memoryview(memory)


def of_array():
    memory = array.array("f", range(4))
    return torch.frombuffer(memory, dtype=torch.float32), memoryview(memory).cast("B")


def of_memoryview():
    memory = memoryview(bytearray(24))
    return torch.frombuffer(memory[4:20], dtype=torch.float32), memory[4:20]


def of_ctypes():
    memory = (ctypes.c_float * 4)(0, 1, 2, 3)
    return torch.frombuffer(memory, dtype=torch.float32), memoryview(memory).cast("B")


def of_interface():
    memory = numpy.arange(4, dtype=numpy.float32)
    return torch.as_tensor(Interface(memory)), memoryview(memory).cast("B")


def of_numpy_view():
    memory = numpy.arange(8, dtype=numpy.float32)
    return torch.from_numpy(memory[:4]), memoryview(memory[:4]).cast("B")


MAKERS = [of_bytearray, of_asarray, of_array, of_memoryview, of_ctypes, of_interface, of_numpy_view]


@program
@pytest.mark.parametrize("make", MAKERS)
def test_python_writes_to_its_own_buffer(make):
    with quiet():
        x, memory = make()
    y = x * 2
    memory[0:4] = numpy.float32(9).tobytes()
    z = x + y
    x[1:].add_(1)
    seen = bytes(memory)
    memory[12:16] = numpy.float32(-1).tobytes()
    return y, z, x * 2, seen, bytes(memory)


# memory of several processes


@program
def test_a_forked_child_writes_to_a_shared_tensor():
    x = (torch.arange(4.0) * 2).share_memory_()
    y = x + 1
    status = in_child(lambda: x.fill_(5))
    z = x + y
    x.add_(1)
    status += in_child(lambda: x.mul_(2))
    return y, z, x + 0, status


@program
def test_a_forked_child_does_not_write_to_what_is_not_shared():
    x = torch.arange(4.0) * 2
    y = x + 1
    status = in_child(lambda: (x.fill_(5), y.add_(x)))
    return x, y, status


@program
def test_shared_memory_of_pythons_own():
    block = shared_memory.SharedMemory(create=True, size=16)
    try:
        x = torch.from_numpy(numpy.ndarray((4,), numpy.float32, buffer=block.buf))
        x.copy_(torch.arange(4.0) * 2)
        y = x + 1

        def write():
            other = shared_memory.SharedMemory(name=block.name)
            numpy.ndarray((4,), numpy.float32, buffer=other.buf)[:] = 7

        status = in_child(write)
        z = x * y
        block.buf[:4] = bytes(4)
        result = y, z, x + 1, status
        del x
        return result
    finally:
        block.close()
        block.unlink()


@program
def test_a_file_that_is_mapped_twice():
    with tempfile.NamedTemporaryFile() as file:
        file.write(numpy.arange(4, dtype=numpy.float32).tobytes())
        file.flush()
        one, two = (torch.from_file(file.name, shared=True, size=4) for _ in range(2))
        y = one * 2
        two.add_(10)
        z = one + y
        one.mul_(2)
        w = two + 1
        with open(file.name, "r+b") as written:
            written.write(numpy.float32(-3).tobytes())
        return y, z, w, one + 0, two + 0


@program
def test_a_file_mapped_as_a_storage():
    with tempfile.NamedTemporaryFile() as file:
        file.write(numpy.arange(4, dtype=numpy.float32).tobytes())
        file.flush()
        one, two = (
            torch.empty(0).set_(torch.UntypedStorage.from_file(file.name, True, 16), 0, (4,))
            for _ in range(2)
        )
        y = one * 2
        two.fill_(5)
        return y, one + y, one + 0


@program
def test_a_checkpoint_that_is_mapped():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pt"
        torch.save({"w": torch.arange(4.0) * 2}, path)
        w = torch.load(path, mmap=True)["w"]
        y = w + 1
        w.mul_(2)
        z = torch.load(path, mmap=True)["w"] + w
        return y, z, w


def fill(shared, value):
    """Work of another process."""
    shared.fill_(value)


@program(times=2)
def test_a_process_that_writes_to_what_is_pending_here():
    context = multiprocessing.get_context("fork")
    x = torch.zeros(4).share_memory_()
    seen = []
    for value in range(3):
        y = x + 1
        process = context.Process(target=fill, args=(x, value + 10.0))
        process.start()
        process.join()
        seen.append((y, x * 2))
    return seen


class Numbered(torch.utils.data.Dataset):
    """Each item notes in shared memory that it was made."""

    def __init__(self, notes):
        self.notes = notes

    def __len__(self):
        return len(self.notes)

    def __getitem__(self, index):
        self.notes[index] += 1
        return torch.full((3,), float(index)) * 2


@program(times=2)
def test_data_loader_workers_write_into_shared_memory():
    notes = torch.zeros(6).share_memory_()
    before = notes + 1
    loader = torch.utils.data.DataLoader(Numbered(notes), batch_size=2, num_workers=2)
    batches = [batch + 1 for batch in loader]
    return before, notes + 0, batches
