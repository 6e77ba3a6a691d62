"""Everything that a program can tell about the objects it reaches, as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy
import torch
from torch import nn

Facts = dict[str, object]
END = "error at the session's end"  # the key for what only a session can raise
Seen = dict[
    int, tuple[str, object]
]  # by id: the first path to an object, and the object, kept alive

_BITS = {1: numpy.uint8, 2: numpy.uint16, 4: numpy.uint32, 8: numpy.uint64}


def facts_of(root: object, look: bool) -> Facts:
    """Return the facts about all that can be reached from ``root``.

    Parameters
    ----------
    look
        Also read values and storages. Without, only what must not flush is asked for.
    """
    facts: Facts = {}
    tensors: list[tuple[str, torch.Tensor]] = []
    arrays: list[tuple[str, numpy.ndarray]] = []
    seen: Seen = {}
    for path, value in reach("", root, seen):
        if isinstance(value, torch.Tensor):
            tensors.append((path, value))
            facts[path] = seen_metadata(value, seen)
        elif isinstance(value, numpy.ndarray):
            arrays.append((path, value))
            facts[path] = (
                "ndarray",
                value.dtype.str,
                value.shape,
                value.strides,
                value.flags.writeable,
            )
        else:
            facts[path] = value
    if look:
        for path, tensor in tensors:
            facts[path + ".values"] = values(tensor)
        for path, array in arrays:
            facts[path + ".values"] = bits(numpy.ascontiguousarray(array))
        facts.update(sharing(tensors, arrays))
    return facts


def reach(path: str, value: object, seen: Seen) -> Iterator[tuple[str, object]]:
    """Yield all leaves below ``value`` with the path to each; an object met again is named by its first path."""
    if value is None or isinstance(
        value, (bool, int, str, bytes, torch.dtype, torch.device, torch.layout, torch.Size)
    ):
        yield path, value if not isinstance(value, torch.Size) else ("Size", *value)
        return
    if isinstance(value, (float, complex)):
        yield path, repr(value)
        return
    if isinstance(value, type):
        yield path, value.__qualname__
        return
    if id(value) in seen:
        yield path, f"the same object as {seen[id(value)][0]}"
        return
    seen[id(value)] = (path, value)
    if isinstance(value, torch.Tensor):
        yield path, value
        if answer(value, "is_leaf") is True or value.retains_grad:
            yield from reach(path + ".grad", value.grad, seen)
    elif isinstance(value, numpy.ndarray):
        yield path, value
    elif isinstance(value, numpy.generic):
        yield path, (type(value).__name__, repr(value))
    elif isinstance(value, Mapping):
        yield path, (type(value).__name__, tuple(str(key) for key in value))
        for key in value:
            yield from reach(
                f"{path}[{key!r}]" if isinstance(key, str) else f"{path}[{key}]", value[key], seen
            )
    elif isinstance(value, (list, tuple)):
        yield path, (type(value).__name__, len(value))
        for index, item in enumerate(value):
            yield from reach(f"{path}[{index}]", item, seen)
    elif isinstance(value, (set, frozenset)):
        yield path, sorted(map(repr, value))
    elif isinstance(value, nn.Module):
        for name, tensor in [*value.named_parameters(), *value.named_buffers()]:
            yield from reach(f"{path}.{name}", tensor, seen)
    elif isinstance(value, torch.optim.Optimizer):
        yield from reach(path + ".state", list(value.state.values()), seen)
        groups = [
            {key: item for key, item in group.items() if key != "params"}
            for group in value.param_groups
        ]
        yield from reach(path + ".groups", groups, seen)
    elif dataclasses.is_dataclass(value):
        yield from reach(path, vars(value), seen)
    elif isinstance(value, BaseException):
        yield path, (type(value).__name__, str(value))
    else:
        raise TypeError(f"{path} is a {type(value)}: return something that can be compared")


def seen_metadata(t: torch.Tensor, seen: Seen) -> dict[str, object]:
    """Return what a tensor tells without being looked at."""
    facts: dict[str, object] = {
        "type": type(t).__name__,
        "dtype": t.dtype,
        "sizes": tuple(t.shape),
        "layout": t.layout,
        "device": t.device,
        "requires_grad": t.requires_grad,
        "is_leaf": answer(t, "is_leaf"),
        "grad_fn": history(t),
        "output_nr": t.output_nr,
        "is_inference": t.is_inference(),
        "conjugate": t.is_conj(),
        "negative": t.is_neg(),
        "retains_grad": t.retains_grad,
        "hooks": len(t._backward_hooks or ()),
        "attributes": tuple(sorted(vars(t))),
        "numel": t.numel(),
        "quantized": t.is_quantized,
        "mkldnn": t.is_mkldnn,
        "sparse": t.is_sparse,
        "itemsize": t.element_size(),
    }
    if not t.is_inference():
        facts["version"] = t._version
        facts["is_view"] = t._is_view()
        base = t._base
        if base is not None:
            facts["base"] = (
                seen[id(base)][0] if id(base) in seen else (tuple(base.shape), base.dtype)
            )
    if t.layout is torch.strided and not t.is_mkldnn:
        facts["strides"] = t.stride()
        facts["offset"] = t.storage_offset()
        facts["contiguous"] = t.is_contiguous()
    return facts


def answer(t: torch.Tensor, name: str) -> object:
    """Return an attribute, or what torch raises: it may have to give up the history of one of several views."""
    try:
        return getattr(t, name)
    except RuntimeError as error:
        return str(error)


def history(t: torch.Tensor) -> tuple | str:
    """Return the names of the autograd nodes behind a tensor, breadth first."""
    last = answer(t, "grad_fn")
    if isinstance(last, str):
        return last
    queue, names, known = [last], [], set()
    while queue and len(names) < 40:
        node = queue.pop(0)
        names.append(type(node).__name__ if node is not None else None)
        if node is None or id(node) in known:
            continue
        known.add(id(node))
        queue += [before for before, _ in node.next_functions]
    return tuple(names)


def values(t: torch.Tensor) -> object:
    """Return a tensor's values such that equal bits are equal, and any NaN equals any NaN."""
    with torch.no_grad():
        t = t.detach()
        if t.is_meta:
            return "meta"
        if t.is_quantized:
            return (str(t.qscheme()), bits(t.int_repr().numpy()), bits(t.dequantize().numpy()))
        if t.is_mkldnn:
            return values(t.to_dense())
        if t.is_nested:
            return [values(part) for part in t.unbind()]
        if t.layout is torch.sparse_coo:
            return (t.is_coalesced(), values(t._indices()), values(t._values()))
        if t.layout in (torch.sparse_csr, torch.sparse_bsr):
            return (values(t.crow_indices()), values(t.col_indices()), values(t.values()))
        if t.layout in (torch.sparse_csc, torch.sparse_bsc):
            return (values(t.ccol_indices()), values(t.row_indices()), values(t.values()))
        if t._is_zerotensor():
            return ("zero tensor", tuple(t.shape))
        t = t.resolve_conj().resolve_neg()
        t = t.reshape(-1) if t.dim() > 60 else t  # NumPy's limit
        if t.is_complex():
            t = torch.view_as_real(t)
        if t.dtype is torch.bfloat16:
            nans = t.isnan().numpy()
            return numpy.where(
                nans, numpy.uint16(0x7FC0), t.view(torch.int16).numpy().view(numpy.uint16)
            )
        if t.dtype.itemsize == 1 and t.dtype not in (torch.bool, torch.int8, torch.uint8):
            return t.contiguous().view(torch.uint8).numpy()
        return bits(numpy.ascontiguousarray(t.numpy()).reshape(t.shape))


def bits(array: numpy.ndarray) -> numpy.ndarray:
    """Return an array's bits as unsigned integers, with one pattern for all NaNs."""
    if array.dtype.kind == "c":
        array = numpy.stack([array.real, array.imag], -1)
    if array.dtype.kind == "f":
        array = numpy.where(numpy.isnan(array), numpy.array(numpy.nan, array.dtype), array)
    if array.dtype.kind in "OSU":
        return array
    return numpy.ascontiguousarray(array).view(_BITS[array.dtype.itemsize]).copy()


def sharing(
    tensors: list[tuple[str, torch.Tensor]], arrays: list[tuple[str, numpy.ndarray]]
) -> Facts:
    """Return which tensors and arrays share memory: each storage is named by the first path that leads to it."""
    facts: Facts = {}
    storages: dict[int, str] = {}
    ranges: list[tuple[int, int, str]] = []
    for path, tensor in tensors:
        if (
            tensor.layout is not torch.strided
            or tensor.is_meta
            or tensor.is_mkldnn
            or tensor.is_nested
            or tensor._is_zerotensor()
        ):
            continue
        storage = tensor.untyped_storage()
        name = storages.setdefault(storage._cdata, path)
        facts[path + ".storage"] = (
            name,
            storage.nbytes(),
            storage.is_shared(),
            storage.resizable(),
        )
        if storage.nbytes():
            ranges.append((storage.data_ptr(), storage.data_ptr() + storage.nbytes(), name))
    for path, array in arrays:
        address = array.__array_interface__["data"][0]
        facts[path + ".storage"] = next(
            (name for start, end, name in ranges if start <= address < end), None
        )
    return facts


def differences(expected: Facts, seen: Facts) -> list[str]:
    """Return one line for each fact that differs."""
    if expected.get("error") != seen.get("error"):  # the rest follows from it
        return [
            f"raised: eager {shorten(expected.get('error'))}, torchy {shorten(seen.get('error'))}"
        ]
    if expected.get(END) != seen.get(END):
        return [f"at the session's end: torchy {shorten(seen.get(END))}"]
    lines = []
    for path in [*expected, *(path for path in seen if path not in expected)]:
        a, b = expected.get(path, "nothing"), seen.get(path, "nothing")
        if isinstance(a, dict) and isinstance(b, dict):
            lines += [
                f"{path}.{key}: eager {a.get(key)!r}, torchy {b.get(key)!r}"
                for key in {**a, **b}
                if a.get(key) != b.get(key)
            ]
        elif not equal(a, b):
            lines.append(f"{path}: {contrast(a, b)}")
    return lines


def equal(a: object, b: object) -> bool:
    """Compare two facts."""
    if isinstance(a, numpy.ndarray) or isinstance(b, numpy.ndarray):
        return (
            isinstance(a, numpy.ndarray)
            and isinstance(b, numpy.ndarray)
            and a.dtype == b.dtype
            and numpy.array_equal(a, b)
        )
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and a == b


def contrast(a: object, b: object) -> str:
    """Say how two facts differ, in a line or two."""
    if (
        isinstance(a, numpy.ndarray)
        and isinstance(b, numpy.ndarray)
        and a.shape == b.shape
        and a.dtype == b.dtype
    ):
        where = numpy.argwhere(a != b)
        first = tuple(int(i) for i in where[0])
        return (
            f"{len(where)} of {a.size} values differ, first at {first}: eager bits {int(a[first]):#x}, "
            f"torchy {int(b[first]):#x}"
        )
    return f"eager {shorten(a)}, torchy {shorten(b)}"


def shorten(fact: object) -> str:
    """Return a fact's text, cut where it gets long."""
    text = repr(fact)
    return text if len(text) < 600 else text[:300] + " ... " + text[-300:]
