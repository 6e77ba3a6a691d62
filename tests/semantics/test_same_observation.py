"""Rule 6, observation: every way to look at a value flushes first, and sees what eager sees."""

import copy
import ctypes
import io
import json
import multiprocessing.reduction
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest
import torch
from sameness import program


def save(t):
    buffer = io.BytesIO()
    torch.save(t, buffer)
    buffer.seek(0)
    return torch.load(buffer)


def in_a_thread(function):
    """Call a function in another thread and return its result."""

    def call(t):
        results = []
        thread = threading.Thread(target=lambda: results.append(function(t)))
        thread.start()
        thread.join()
        return results

    return call


def in_a_pool(t):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: (t + 1).tolist()).result()


# Each gets a 2x3 float tensor that is pending. Those below SCALAR_READERS get one of a single element.
READERS = {
    "repr": repr,
    "str": str,
    "print": print,
    "format": lambda t: f"{t}",
    "numpy": lambda t: t.numpy().copy(),
    "numpy.asarray": lambda t: numpy.asarray(t).copy(),
    "numpy.array": numpy.array,
    "__array__": lambda t: t.__array__().sum(),
    "numpy function": numpy.sum,
    "tolist": lambda t: t.tolist(),
    "list of rows": lambda t: [row.tolist() for row in t],
    "data_ptr": lambda t: (ctypes.c_float * 6).from_address(t.data_ptr())[5],
    "dlpack": lambda t: numpy.from_dlpack(t).sum(),
    "torch dlpack": lambda t: torch.from_dlpack(t).sum().item(),
    "pickle": lambda t: pickle.loads(pickle.dumps(t)),
    "torch.save": save,
    "deepcopy": lambda t: copy.deepcopy(t) + 1,
    "untyped_storage": lambda t: bytes(t.untyped_storage()),
    "storage element": lambda t: t.untyped_storage()[3],
    "share_memory": lambda t: t.share_memory_().sum().item(),
    "to(float64)": lambda t: t.to(torch.float64).tolist(),
    "double": lambda t: t.double().numpy(),
    "memoryview": lambda t: memoryview(t.numpy()).tolist(),
    "torch.tensor": lambda t: torch.tensor([t[0, 0], t[0, 1]]),
    "equal": lambda t: torch.equal(t, t + 0),
    "allclose": lambda t: torch.allclose(t, t.clone()),
    "nonzero": lambda t: t.nonzero(),
    "mask": lambda t: t[t > 3],
    "argwhere": torch.argwhere,
    "unique": torch.unique,
    "in": lambda t: 3.0 in t,
    "any": lambda t: bool((t > 5).any()),
    "max": lambda t: max(t.flatten().tolist()),
    "python sum": lambda t: sum(t[0]).item(),
    "sorted": lambda t: sorted(t[0], key=float)[0].item(),
    "where": lambda t: torch.where(t > 3),
    "json": lambda t: json.dumps(t.tolist()),
    "masked_select": lambda t: t.masked_select(t > 2),
    "cpu": lambda t: t.cpu().tolist(),
    "another thread": in_a_thread(lambda t: (t * 2).tolist()),
    "item in a thread": in_a_thread(lambda t: t[0, 1].item()),
    "numpy in a thread": in_a_thread(lambda t: t.numpy().copy()),
    "pool": in_a_pool,
    "histogram": lambda t: torch.histc(t, 3),
    "linalg": lambda t: torch.linalg.svdvals(t),
    "fft": lambda t: torch.fft.fft(t).abs(),
    "byte views": lambda t: t.view(torch.uint8).tolist(),
    "dict key": lambda t: {t[0, 0].item(): 1},
    "reduce_ex": lambda t: t.__reduce_ex__(2)[1][1],
    "struct": lambda t: bytes(t.numpy()),
    "ForkingPickler": lambda t: len(multiprocessing.reduction.ForkingPickler.dumps(t)) > 0,
    "compiled script": lambda t: torch.jit.trace(lambda x: x * 2, (torch.ones(2, 3),))(t).tolist(),
    "data attribute": lambda t: t.data.tolist(),
    "detach numpy": lambda t: t.detach().numpy().copy(),
    "T": lambda t: t.T.tolist(),
    "set": lambda t: torch.zeros(0).set_(t).tolist(),
    "assert_close": lambda t: torch.testing.assert_close(t, t + 0),
    "is_set_to": lambda t: t.is_set_to(t),
    "tensor_split": lambda t: torch.tensor_split(torch.arange(7), t[0].long()),
    "hash of values": lambda t: hash(tuple(t.flatten().tolist())),
    "quantize": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.quint8).int_repr(),
    "to_sparse": lambda t: t.to_sparse().indices(),
    "new_tensor": lambda t: t.new_tensor([t[0, 0], 2.0]),
    "as_tensor": lambda t: torch.as_tensor(t).tolist(),
    "asarray": lambda t: torch.asarray(t).tolist(),
    "type": lambda t: t.type(torch.int64).tolist(),
    "to_mkldnn": lambda t: t.to_mkldnn().to_dense(),
    "repeat_interleave": lambda t: torch.arange(3).repeat_interleave(t[0].long()),
    "index_select": lambda t: torch.arange(9).index_select(0, t[0].long()),
    "index": lambda t: torch.arange(9)[t.long()],
    "bincount": lambda t: torch.bincount(t.flatten().long()),
    "multinomial": lambda t: torch.multinomial(t + 1, 2),
    "split sizes": lambda t: torch.split(torch.arange(6), t[0].long().tolist()),
    "storage type": lambda t: t.untyped_storage().nbytes(),
    "tensor of tensor": lambda t: torch.Tensor(t[0]),
    "swapaxes": lambda t: t.swapaxes(0, 1).numpy().sum(),
    "ctc lengths": lambda t: torch.nn.functional.ctc_loss(
        torch.zeros(6, 1, 4).log_softmax(2),
        torch.ones(1, 2, dtype=torch.long),
        t[1, 2:].long() + 1,
        t[0, 2:].long(),
    ),
    "pack_padded": lambda t: (
        torch.nn.utils.rnn.pack_padded_sequence(
            torch.ones(5, 3, 1), t[1].long().flip(0), enforce_sorted=False
        ).data
    ),
}
SCALAR_READERS = {
    "item": lambda t: t.item(),
    "bool": bool,
    "int": int,
    "float": float,
    "complex": complex,
    "index": lambda t: [5, 6, 7, 8][t.long()],
    "format spec": lambda t: f"{t:.3f}",
    "percent": lambda t: "%.2f" % t,  # noqa: UP031
    "if": lambda t: "yes" if t > 1 else "no",
    "while": lambda t: [t := t - 1 for _ in range(3) if t > 0],
    "range": lambda t: list(range(t.long())),
    "round": lambda t: round(t.item(), 2),
    "not": lambda t: not t,
    "and": lambda t: t > 1 and t < 5,
    "assert": lambda t: (t == 2).__bool__(),
    "min": lambda t: min(t, torch.tensor(1.0)).item(),
    "numpy scalar": lambda t: numpy.float32(t),
    "math": lambda t: __import__("math").sqrt(t),
    "list index": lambda t: [1, 2, 3, 4][int(t)],
    "slice": lambda t: torch.arange(10)[: int(t)],
    "size": lambda t: torch.ones(int(t), 2),
    "scalar tensor": lambda t: torch.full((2,), t.item()),
    "tensor index": lambda t: torch.arange(10)[t.long()],
    "slice by a tensor": lambda t: torch.arange(10)[t.long() :],
    "local_scalar": lambda t: torch._local_scalar_dense(t),
    "array of scalars": lambda t: numpy.array([t, t + 1]),
    "tensor of scalars": lambda t: torch.tensor([t, 1.0]),
    "arange": lambda t: torch.arange(t.item()),
    "clamp": lambda t: torch.arange(4.0).clamp(max=t),
    "fill": lambda t: torch.zeros(2).fill_(t),
    "repeat": lambda t: torch.ones(1).repeat(int(t)),
    "setitem": lambda t: torch.zeros(3).index_put_((t.long(),), t),
    "masked_fill": lambda t: torch.zeros(3).masked_fill_(torch.ones(3) > 0, t),
    "add to int": lambda t: 1 + int(t) + t,
    "power": lambda t: 2 ** float(t),
    "comparison chain": lambda t: bool(0 < t < 5),
    "is_nonzero": torch.is_nonzero,
    "narrow": lambda t: torch.arange(6).narrow(0, t.long(), 2),
    "tensor_split": lambda t: torch.tensor_split(torch.arange(6), t.long()),
    "select": lambda t: torch.arange(6).select(0, int(t)),
    "sum of builtins": lambda t: sum([t, t, t]).item(),
    "any": lambda t: any([t > 5, t > 1]),
    "sorted": lambda t: sorted([t, t - 1])[0].item(),
    "divmod": lambda t: divmod(int(t), 2),
    "match": lambda t: {2: "two"}.get(int(t)),
}


@program
@pytest.mark.parametrize("name", READERS)
def test_reader(name):
    x = torch.arange(6.0).reshape(2, 3) * 1
    y = x.add(1).sub_(1)
    seen = READERS[name](y)
    x.mul_(2)
    y.add_(x)
    return (
        seen,
        x,
        y,
        READERS[name](y / 4),
        READERS[name](torch.arange(12.0)[6:].reshape(2, 3) * 0.5),
    )


@program(slow=("never",))
@pytest.mark.parametrize("name", SCALAR_READERS)
def test_reader_of_one_value(name):
    x = torch.ones(3)
    y = x.sum() - 1
    seen = SCALAR_READERS[name](y)
    y.add_(1)
    return seen, y, SCALAR_READERS[name](y * 0.5 + 1), SCALAR_READERS[name]((x * 2)[1])


@pytest.mark.parametrize("name", ["repr", "numpy", "tolist", "data_ptr", "dlpack", "pickle", "torch.save", "deepcopy",
                                  "untyped_storage", "storage element", "share_memory", "another thread"])  # fmt: skip
def test_reader_leaves_nothing_pending(name):
    import torchy

    with torchy.lazy():
        x = torch.arange(6.0).reshape(2, 3) * 1
        view = x[0]
        assert torchy.is_pending(x)
        assert torchy.is_pending(view)
        READERS[name](x)
        assert not torchy.is_pending(x)
        assert not torchy.is_pending(view)


@program
def test_a_reader_on_a_tensor_that_requires_grad():
    x = torch.arange(4.0, requires_grad=True)
    y = x * 2
    return y.tolist(), y[1].item(), f"{y}", repr(y.sum()), y.detach().numpy().copy(), str(x), y


@program
def test_printing_in_the_middle():
    x = torch.linspace(0, 1, 7)
    print(x)
    y = x * 3
    print("y is", y, y.sum(), y.shape, y[2])
    print(f"{y.mean():.4f} {y.max().item():8.3f}")
    torch.set_printoptions(precision=2, sci_mode=True)
    print(y / 7)
    torch.set_printoptions(profile="default")
    print([y[0], y[1] + 1], {"a": y.long()}, (y > 1,))
    print(torch.zeros(0) + 1, torch.ones(2, 0) * 2, torch.tensor(3) + 1, (y > 1).sum())
    return y


@program
def test_printing_large_tensors_and_other_dtypes():
    x = torch.arange(5000.0) / 7
    print(
        x,
        x.reshape(50, 100) * 1e8,
        (x[:3] * 1e-8).double(),
        x[:4] + 1j,
        x[:5].half() * 2,
        x[:3].bfloat16() + 1,
    )
    print(
        (x[:3] / 0, x[:3].int() // 2, x.reshape(2, -1).t()[:2] + 1, torch.nn.Parameter(x[:2] * 2))
    )


@program
def test_data_dependent_control_flow():
    x, steps = torch.tensor([3.0, 7.0]), 0
    while x.max() > 1:
        x = torch.where(x % 2 == 0, x / 2, x * 3 + 1) if (x.long() % 2 == 0).any() else x / 3
        steps += 1
        if steps > 50 or x.sum() < 2:
            break
    return x, steps


@program
def test_newtons_method_until_it_converges():
    x = torch.tensor(2.0, dtype=torch.float64)
    trail = []
    while True:
        step = (x * x - 2) / (2 * x)
        x = x - step
        trail.append(float(x))
        if step.abs() < 1e-12:
            return x, trail


@program
def test_containers_of_pending_tensors():
    tensors = {f"{i}": torch.ones(2) * i for i in range(4)}
    state = copy.deepcopy(tensors)
    text = json.dumps({key: value.tolist() for key, value in tensors.items()})
    for value in tensors.values():
        value += 1
    return (
        tensors,
        state,
        text,
        save(tensors),
        pickle.loads(pickle.dumps([tensors["1"], tensors["1"][1:]])),
    )


@program
def test_modules_saved_and_loaded_while_pending():
    layer = torch.nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.mul_(2)
    state = save(layer.state_dict())
    other = torch.nn.Linear(3, 2)
    other.load_state_dict(state)
    copied = copy.deepcopy(layer)
    with torch.no_grad():
        other.weight.add_(1)
    return layer, other, copied, state


@program
def test_a_look_at_one_of_many_pending_tensors():
    x = torch.arange(5.0)
    many = [x * i for i in range(20)]
    one = many[7].sum().item()
    more = [m + one for m in many]
    return many, one, more[3].tolist(), more
