"""Rule 4, aliasing with what is outside torch: NumPy, DLPack, raw pointers, storages, other processes."""

import copy
import ctypes
import io
import pathlib
import pickle
import tempfile
import threading

import numpy
import torch
from sameness import program, quiet


def read_floats(address, count):
    """Read memory as C code would."""
    return list((ctypes.c_float * count).from_address(address))


@program
def test_a_numpy_view_taken_before_a_write_sees_it_at_once():
    x = torch.arange(5.0) * 2
    array = x.numpy()
    x.add_(1)
    seen = array.copy()
    x[1:].mul_(2)
    first = array[1].item()
    return x, array, seen, first, array.sum().item()


@program
def test_a_numpy_view_of_a_view_sees_writes_to_the_base():
    x = torch.arange(12.0).reshape(3, 4) + 1
    array = x[1:].t().numpy()
    x.mul_(2)
    seen = array.copy()
    x[2] = 0
    return x, array, seen


@program
def test_torch_sees_what_numpy_writes():
    x = torch.arange(5.0) * 2
    array = x.numpy()
    y = x + 1
    array[0] = 100
    z = x + 1
    array += 1
    x.add_(array.sum())
    return x, y, z, array


@program
def test_numpy_reads_before_a_write_that_torch_does_later():
    x = torch.arange(4.0) + 1
    y = x * 2
    before = y.numpy().copy()
    y.neg_()
    x.numpy()[:] = 7
    z = x + y
    return x, y, z, before


@program(given=lambda: (numpy.arange(6.0),))
def test_from_numpy_shares_in_both_directions(array):
    x = torch.from_numpy(array)
    y = x * 2
    array[0] = 50
    x.add_(1)
    seen = array.copy()
    z = x + y
    array[:] = 0
    w = torch.as_tensor(array) + 1
    return x, y, z, w, seen, torch.frombuffer(array, dtype=torch.float64) + 1


@program(given=lambda: (lambda a: (a, torch.from_numpy(a)))(numpy.arange(6.0)))
def test_a_numpy_array_older_than_the_session(array, x):
    x.add_(1)
    seen = array.copy()
    y = x * 2
    array[:3] = -1
    x[3:].mul_(y[:3])
    return seen, y, array.sum()


@program(given=lambda: (lambda x: (x, x.numpy()))(torch.arange(6.0)))
def test_a_tensor_whose_memory_numpy_saw_before_the_session(x, array):
    y = x * 2
    x.sub_(1)
    seen = array.copy()
    array[0] = 9
    return y, seen, x + 0


@program
def test_dlpack_shares_in_both_directions():
    x = torch.arange(5.0) * 3
    y = torch.from_dlpack(x)
    array = numpy.from_dlpack(x)
    x.add_(1)
    seen = array.copy()
    y.mul_(2)
    capsule = torch.utils.dlpack.to_dlpack(x)
    z = torch.utils.dlpack.from_dlpack(capsule)
    z[0] = 0
    return x, y, z, seen, array


@program
def test_the_array_protocol_and_memoryviews():
    x = torch.arange(6.0).reshape(2, 3) + 1
    a, b = numpy.asarray(x), numpy.array(x)
    view = memoryview(numpy.asarray(x))
    x.mul_(2)
    return (
        a,
        b,
        view.tolist(),
        numpy.add(x, 1),
        numpy.sum(x * 2),
        numpy.maximum(x, 3),
        x.__array__(),
        float(view[0, 0]),
    )


@program
def test_a_raw_pointer_is_read_by_c():
    x = torch.arange(4.0) + 1
    y = x * 2
    address = y.data_ptr()
    first = read_floats(address, 4)
    y.add_(1)
    second = read_floats(address, 4)
    y[2:].neg_()
    third = read_floats(address, 4)
    return x, y, first, second, third


@program
def test_a_raw_pointer_is_written_by_c():
    x = torch.zeros(4) + 1
    address = x.data_ptr()
    y = x * 2
    source = (ctypes.c_float * 4)(5, 6, 7, 8)
    ctypes.memmove(address, source, 16)
    z = x * 2
    x.add_(1)
    ctypes.memset(address, 0, 8)
    return x, y, z, x + 1


@program
def test_c_writes_through_one_pointer_what_it_reads_from_another():
    x, y = torch.arange(4.0) + 1, torch.zeros(4) * 2
    ctypes.memmove(y.data_ptr(), x.data_ptr(), 16)
    z = x + y
    ctypes.memmove(x.data_ptr() + 4, z.data_ptr(), 8)
    return x, y, z


@program
def test_a_pointer_into_the_midst_of_a_storage():
    x = torch.arange(8.0) * 1
    tail = x[5:] + 0
    address = x[5:].data_ptr()
    x.add_(1)
    return read_floats(address, 3), x.data_ptr() + 20 == address, tail


@program
def test_storages_are_read_and_written():
    x = torch.arange(4.0) + 1
    storage = x.untyped_storage()
    x.mul_(2)
    raw = bytes(storage)
    storage.fill_(0)
    y = x + 1
    with quiet():  # it warns once per process
        typed = x.storage()
        x.add_(3)
        values = typed.tolist()
    storage.copy_((torch.ones(4) * 7).untyped_storage())
    return (
        x,
        y,
        raw,
        values,
        typed[0],
        len(storage),
        storage.nbytes(),
        typed.size(),
        storage.data_ptr() == x.data_ptr(),
    )


@program
def test_sharing_memory_with_other_processes():
    x = torch.arange(4.0) + 1
    view = x[1:]
    shared = x.share_memory_()
    x.add_(1)
    y = view * 2
    return x, view, y, shared is x, x.is_shared(), view.is_shared(), x.numpy().copy()


@program
def test_pickle_save_and_deepcopy_keep_sharing():
    x = torch.arange(6.0) * 2
    pair = (x, x[2:])
    copied = copy.deepcopy(pair)
    loaded = pickle.loads(pickle.dumps(pair))
    buffer = io.BytesIO()
    torch.save(pair, buffer)
    buffer.seek(0)
    restored = torch.load(buffer)
    x.add_(1)
    for a, _ in (copied, loaded, restored):
        a.sub_(1)
    return pair, copied, loaded, restored, copy.copy(x), x.clone()


@program
def test_a_file_mapped_into_memory():
    with tempfile.NamedTemporaryFile() as file:
        file.write(numpy.arange(4, dtype=numpy.float32).tobytes())
        file.flush()
        x = torch.from_file(file.name, shared=True, size=4)
        y = x * 2
        x.add_(1)
        seen = pathlib.Path(file.name).read_bytes()
        return x + 0, y, numpy.frombuffer(seen, dtype=numpy.float32)


@program
def test_buffers_given_by_python():
    memory = bytearray(numpy.arange(4, dtype=numpy.float32).tobytes())
    x = torch.frombuffer(memory, dtype=torch.float32)
    y = x * 2
    memory[0:4] = numpy.float32(9).tobytes()
    z = x + 1
    x.zero_()
    return y, z, bytes(memory)


@program
def test_a_storage_resized_to_nothing_and_back():
    x = torch.arange(4.0) + 1
    kept = x * 2
    size = x.untyped_storage().nbytes()
    x.untyped_storage().resize_(0)
    x.untyped_storage().resize_(size)
    x.copy_(kept)
    y = x + 1
    return x, y, kept


@program
def test_a_pointer_used_by_another_thread():
    x = torch.zeros(1000) + 1
    address, seen = x.data_ptr(), []
    x.add_(1)
    thread = threading.Thread(target=lambda: seen.append(sum(read_floats(address, 1000))))
    thread.start()
    thread.join()
    return x, seen


@program
def test_addresses_are_stable():
    x = torch.arange(4.0) + 1
    y = x[1:]
    first = x.data_ptr()
    x.add_(1)
    y.mul_(2)
    second = x.data_ptr()
    return first == second, y.data_ptr() - first, x.untyped_storage().data_ptr() == first, x


@program
def test_numpy_scalars_and_arrays_as_operands():
    x = torch.arange(3.0) + 1
    return (x * numpy.float64(2), x + numpy.ones(3, numpy.float32), x * numpy.int64(3), x > numpy.float32(1.5),
            torch.tensor(numpy.ones(2)) * 2, torch.tensor([x[0], x[1] * 2]),
            torch.tensor([numpy.float32(3)]) + x)  # fmt: skip


@program
def test_an_uninitialised_tensor_filled_by_numpy():
    x = torch.empty(4)
    array = x.numpy()
    array[:] = 3
    y = x * 2
    z = torch.empty(4)
    z.copy_(y)
    z.numpy()[0] = -1
    torch.from_numpy(array)[1] = 8
    return x, y, z, x + z
