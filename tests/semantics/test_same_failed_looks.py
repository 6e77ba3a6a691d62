"""Rules 2, 6 and 7: a look that raises does so as in eager; what was pending is there, and recording goes on."""

import copy
import io
import pickle

import pytest
import torch
from sameness import program
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

MISTAKES = {
    "tolist with an argument": lambda t: t.tolist(1),
    "tolist of no tensor": lambda t: torch.Tensor.tolist(3),
    "tolist of nothing": lambda t: torch.Tensor.tolist(),
    "data_ptr with an argument": lambda t: t.data_ptr(1),
    "data_ptr of no tensor": lambda t: torch.Tensor.data_ptr([t]),
    "numpy with a wrong argument": lambda t: t.numpy(copy=True),
    "numpy of what requires grad": lambda t: t.requires_grad_().numpy(),
    "numpy of bfloat16": lambda t: t.bfloat16().numpy(),
    "array of a wrong dtype": lambda t: t.__array__("no dtype"),
    "type of no type": lambda t: t.type("no type"),
    "new_tensor of an object": lambda t: t.new_tensor(object()),
    "new with wrong arguments": lambda t: t.new("wrong"),
    "item of many": lambda t: t.item(),
    "bool of many": lambda t: bool(t),
    "int of many": lambda t: int(t),
    "a wrong format": lambda t: f"{t[0]:wrong}",
    "dlpack with a wrong stream": lambda t: t.__dlpack__(stream="wrong"),
    "dlpack of what requires grad": lambda t: t.requires_grad_().__dlpack__(),
    "dlpack of no tensor": lambda t: torch.utils.dlpack.to_dlpack(3),
    "data_ptr of a sparse tensor": lambda t: t.to_sparse().data_ptr(),
    "storage of a sparse tensor": lambda t: t.to_sparse().untyped_storage(),
    "tolist of a meta tensor": lambda t: t.to("meta").tolist(),
    "deepcopy of what is not a leaf": lambda t: copy.deepcopy(t.requires_grad_() * 2),
    "storage resized to nonsense": lambda t: t.untyped_storage().resize_("large"),
    "storage resized below zero": lambda t: t.untyped_storage().resize_(-1),
    "resize of no storage": lambda t: torch.UntypedStorage.resize_(t, 3),
    "storage shared in a wrong way": lambda t: t.share_memory_(3),
    "reduced by a wrong protocol": lambda t: t.__reduce_ex__("two"),
    "swapped with no tensor": lambda t: torch.utils.swap_tensors(t, 3),
}


@program
@pytest.mark.parametrize("name", MISTAKES)
def test_a_look_that_is_a_mistake(name, kept):
    x = torch.linspace(-1, 1, 6)
    y = x * 2
    y.add_(1)
    kept += [x, y, y * 3]
    try:
        MISTAKES[name](y + 0)
    except Exception as error:
        kept.append((type(error).__name__, str(error)))
    z = y.exp()
    kept.append(z)
    MISTAKES[name](z * 2)


class Refuses:
    """Cannot be copied, pickled or shown."""

    def __init__(self, kept, tensor):
        self.kept, self.tensor = kept, tensor

    def look(self, *arguments):
        self.kept.append(self.tensor.sum().item())
        raise ValueError("refused")

    __reduce__ = __repr__ = __deepcopy__ = __array__ = look


LOOKS = {
    "pickle": pickle.dumps,
    "save": lambda things: torch.save(things, io.BytesIO()),
    "deepcopy": copy.deepcopy,
    "repr": repr,
    "tensor": torch.tensor,
}


@program
@pytest.mark.parametrize("look", LOOKS)
def test_a_look_fails_at_the_next_thing_in_a_list(look, kept):
    x = torch.linspace(-1, 1, 6)
    y = x * 2
    kept += [x, y]
    try:
        LOOKS[look]([y, Refuses(kept, y + 1), y * 3])
    except ValueError as error:
        kept.append(str(error))
    y.add_(1)
    kept.append(y.exp())


@program
def test_printing_fails_in_the_midst(kept):
    x = torch.linspace(-1, 1, 6) * 2
    before = torch._tensor_str.PRINT_OPTS.precision
    torch._tensor_str.PRINT_OPTS.precision = "wrong"
    try:
        print(x)
    except ValueError as error:
        kept.append(str(error))
    finally:
        torch._tensor_str.PRINT_OPTS.precision = before
    y = x + 1
    print(y)
    kept += [x, y, y * 2]


def test_recording_goes_on_after_printing_failed():
    import torchy

    with torchy.lazy(compile="never"):
        x = torch.linspace(-1, 1, 6) * 2
        torch._tensor_str.PRINT_OPTS.precision = "wrong"
        with pytest.raises(ValueError, match="specifier"):
            repr(x)
        assert torchy.is_pending(x + 1)


class Guarded(torch.Tensor):
    """A tensor that only lets some functions be called."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function in (torch.Tensor.mul, torch.Tensor.add_, torch.Tensor.detach):
            return super().__torch_function__(function, types, args, kwargs)
        raise PermissionError(getattr(function, "__name__", "a property"))


@program
@pytest.mark.parametrize(
    "look", ["tolist", "numpy", "data_ptr", "item", "untyped_storage", "__repr__", "sum"]
)
def test_a_subclass_forbids_the_look(look, kept):
    x = torch.linspace(-1, 1, 6) * 2
    y = x.as_subclass(Guarded).mul(3)
    try:
        getattr(y, look)()
    except PermissionError as error:
        kept.append(str(error))
    y.add_(1)
    with torch._C.DisableTorchFunctionSubclass():
        kept += [x, y.as_subclass(torch.Tensor) + 1]


@program
def test_a_function_mode_forbids_the_look(kept):
    class Forbids(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is torch.Tensor.item:
                raise PermissionError("item")
            return function(*args, **(kwargs or {}))

    x = torch.linspace(-1, 1, 6)
    with Forbids():
        y = x * 2
        try:
            y.sum().item()
        except PermissionError as error:
            kept.append(str(error))
        z = y + 1
    kept += [x, y, z]


@program
def test_a_dispatch_mode_forbids_the_look(kept):
    class Forbids(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten._local_scalar_dense.default:
                raise PermissionError("item")
            return function(*args, **(kwargs or {}))

    x = torch.linspace(-1, 1, 6) * 3
    try:
        with Forbids():
            y = x * 2
            y.add_(1)
            y.sum().item()
    except PermissionError as error:
        kept.append(str(error))
    kept += [x, y, y + 1]


@program
def test_a_gradient_hook_looks_and_raises(kept):
    def hook(gradient):
        kept.append(gradient.sum().item())
        raise ValueError("in a hook")

    x = torch.linspace(-1, 1, 6).requires_grad_()
    w = torch.ones(6, requires_grad=True)
    y = x * 2
    y.register_hook(hook)
    z = (y * w).exp()
    kept += [x, y, z, w]
    try:
        z.sum().backward()
    except ValueError as error:
        kept.append(str(error))
    kept.append(z.detach() + 1)


@program
def test_saved_tensors_hooks_look_and_raise(kept):
    def pack(tensor):
        kept.append(tensor.detach().sum().item())
        if len(kept) > 2:
            raise ValueError("in a hook")
        return tensor

    x = torch.linspace(-1, 1, 6).requires_grad_()
    y = x * 2
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            z = (y * y).exp()
            w = z * y
    except ValueError as error:
        kept.append(str(error))
    kept += [x, y, z, y + 1]
    return "w" in locals()


@program
def test_an_exception_while_a_function_saves_and_looks(kept):
    class Looks(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            kept.append(x.amax().item())
            return x * 2

        @staticmethod
        def backward(context, gradient):
            (x,) = context.saved_tensors
            kept.append((x * gradient).tolist())
            raise ArithmeticError("backward")

    x = torch.linspace(-1, 1, 6).requires_grad_()
    y = Looks.apply(x + 1)
    kept += [x, y]
    try:
        (y * 3).sum().backward()
    except ArithmeticError as error:
        kept.append(str(error))
    kept.append(y.detach() * 2)
