"""Ways to look at a tensor, or to change how torch computes, that the walker does not see, in one table.

What goes through the dispatcher, and whoever asks torch for a mutable pointer, meets the walker anyway.
The rest reads through const pointers, or hands memory to something outside torch: these functions flush
first.
"""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed

from torchy.record.unseen import uncompiled

# method of torch.Tensor -> whether memory is handed out for good: such a storage's ops run at once from then on
TENSOR_READERS: dict[str, bool] = {
    "tolist": False,
    "type": False,  # reads the keys
    "new": False,
    "new_tensor": False,
    "numpy": True,
    "__array__": True,
    "data_ptr": True,
    "const_data_ptr": True,
    "mutable_data_ptr": True,
    "__dlpack__": True,
    "untyped_storage": False,  # writing through it asks for a mutable pointer
    "storage": False,
    "_typed_storage": False,
    "share_memory_": True,
    "is_shared": False,
    "__reduce_ex__": False,
    "__deepcopy__": False,
}
FUNCTION_READERS: tuple[tuple[Any, str], ...] = (
    (torch, "to_dlpack"),
    (torch.utils.dlpack, "to_dlpack"),
    (torch._C, "_to_dlpack"),
    (torch.utils, "swap_tensors"),  # minds weak references: the walker has some to pending tensors
)

# methods of torch.UntypedStorage that replace memory or hand it out
STORAGE_READERS = ("resize_", "data_ptr")

# what writes tensors to a file that only C++ knows: everything is computed first
WHOLE_READERS: tuple[tuple[Any, str], ...] = tuple(
    (owner, name)
    for owner in (torch._C.ScriptModule, torch._C.ScriptFunction)
    for name in ("save", "save_to_buffer", "_save_for_mobile", "_save_to_buffer_for_mobile")
)

# what changes how the process computes: ops that are recorded already are to be computed as before
SETTERS: tuple[tuple[Any, str], ...] = tuple(
    (torch._C, name)
    for name in (
        "_set_default_dtype",
        "_set_default_tensor_type",
        "_set_deterministic_algorithms",
        "_set_deterministic_fill_uninitialized_memory",
        "_set_mkldnn_enabled",
        "_set_mkldnn_deterministic",
        "_set_nnpack_enabled",
        "_set_float32_matmul_precision",
        "_set_fp32_precision_setter",
        "_set_cpu_allow_fp16_reduced_precision_reduction",
    )
)
# what has the libraries print what they run
TELLERS: tuple[tuple[Any, str], ...] = (
    (torch._C._verbose, "mkldnn_set_verbose"),
    (torch._C._verbose, "mkl_set_verbose"),
)

# what gives ops other kernels
REGISTRARS: tuple[tuple[Any, str], ...] = (
    (torch.library.Library, "impl"),
    (type(torch.ops), "load_library"),
)

# functions of torch that look at a tensor with many ops of their own: those are not the program's
PAUSED_READERS: tuple[tuple[Any, str, str], ...] = (
    (torch._tensor_str, "_str", "print"),
    (torch.distributed, "_verify_params_across_processes", "DistributedDataParallel"),
)

Settle = Callable[[torch.Tensor, bool, str], None]


class Readers:
    """Puts the readers' hooks in place, and takes them away again.

    Parameters
    ----------
    settle
        ``settle(tensor, escapes, reason)`` computes what is pending on a tensor.
    settle_storage
        The same for an address of a storage that is about to be replaced.
    settle_all
        ``settle_all(reason)`` computes all that is pending in any session.
    paused
        Gives a context in which this thread's ops are not recorded.
    registered
        Called when kernels may have been registered.
    """

    def __init__(
        self,
        settle: Settle,
        settle_storage: Callable[[int, str], None],
        settle_all: Callable[[str], None],
        paused: Callable[[], AbstractContextManager[None]],
        registered: Callable[[], None],
    ) -> None:
        self._registered = registered
        self._settle = settle
        self._paused = paused
        self._settle_storage = settle_storage
        self._settle_all = settle_all
        self._replaced: list[
            tuple[Any, str, Any, Any]
        ] = []  # the hook; what was there, None: inherited
        self._hooks: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()  # the same
        self._installed = False

    def install(self) -> None:
        """Put the hooks in place; does nothing if they are."""
        if self._installed:
            return
        self.uninstall()  # what an interrupt may have left
        for name, escapes in TENSOR_READERS.items():
            self._replace(torch.Tensor, name, functools.partial(self._method, name, escapes))
        for owner, name in FUNCTION_READERS:
            self._replace(owner, name, functools.partial(self._function, name))
        for owner, name in (*WHOLE_READERS, *SETTERS, *TELLERS):
            self._replace(owner, name, functools.partial(self._whole_function, name))
        for owner, name in REGISTRARS:
            self._replace(owner, name, functools.partial(self._registrar, name))
        for owner, name, reason in PAUSED_READERS:
            self._replace(owner, name, functools.partial(self._paused_function, reason))
        for name in STORAGE_READERS:
            self._replace(torch.UntypedStorage, name, functools.partial(self._storage_method, name))
        self._installed = True

    def uninstall(self) -> None:
        """Leave torch as it was; may be called again after an interrupt."""
        self._installed = False
        while self._replaced:
            owner, name, hook, own = self._replaced[-1]
            if vars(owner).get(name) is hook:  # else the program has put something else there
                _put_back(owner, name, own)
            self._replaced.pop()

    def _replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Have a hook, made of what is there, stand for a function, if there is one."""
        own = vars(owner).get(name)
        if isinstance(own, types.FunctionType) and own in self._hooks:
            # the program had put something in place of an earlier hook, and took it off again later
            own = self._hooks[own]
            _put_back(owner, name, own)
        if hasattr(owner, name):
            hook = make(getattr(owner, name))
            self._hooks[hook] = own
            self._replaced.append((owner, name, hook, own))
            setattr(owner, name, hook)

    def _method(self, name: str, escapes: bool, original: Any) -> Any:
        settle = self._settle

        @uncompiled
        @functools.wraps(original)
        def reader(*args: Any, **kwargs: Any) -> Any:
            if args and isinstance(args[0], torch.Tensor):  # else torch itself raises
                settle(args[0], escapes, name)
            return original(*args, **kwargs)

        return reader

    def _function(self, name: str, original: Any) -> Any:
        settle = self._settle
        escapes = "dlpack" in name

        @uncompiled
        @functools.wraps(original)
        def reader(*args: Any, **kwargs: Any) -> Any:
            for tensor in _tensors(args):
                settle(tensor, escapes, name)
            return original(*args, **kwargs)

        return reader

    def _paused_function(self, reason: str, original: Any) -> Any:
        settle, paused = self._settle, self._paused

        @uncompiled
        @functools.wraps(original)
        def reader(*args: Any, **kwargs: Any) -> Any:
            for tensor in _tensors(args):
                settle(tensor, False, reason)
            with paused():
                return original(*args, **kwargs)

        return reader

    def _whole_function(self, name: str, original: Any) -> Any:
        settle = self._settle_all

        @uncompiled
        @functools.wraps(original)
        def reader(*args: Any, **kwargs: Any) -> Any:
            settle(f"{name}()")
            return original(*args, **kwargs)

        return reader

    def _registrar(self, name: str, original: Any) -> Any:
        settled, registered = self._whole_function(name, original), self._registered

        @uncompiled
        @functools.wraps(original)
        def registrar(*args: Any, **kwargs: Any) -> Any:
            try:
                return settled(*args, **kwargs)
            finally:
                registered()

        return registrar

    def _storage_method(self, name: str, original: Any) -> Any:
        settle = self._settle_storage

        @uncompiled
        @functools.wraps(original)
        def reader(*args: Any, **kwargs: Any) -> Any:
            if args and isinstance(args[0], torch.UntypedStorage):
                settle(args[0]._cdata, f"UntypedStorage.{name}")
            return original(*args, **kwargs)

        return reader


def _put_back(owner: Any, name: str, own: Any) -> None:
    if own is not None:
        setattr(owner, name, own)
    else:
        delattr(owner, name)


def _tensors(args: Iterable[Any]) -> Iterator[torch.Tensor]:
    for arg in args:
        for item in arg if isinstance(arg, list | tuple) else (arg,):
            if isinstance(item, torch.Tensor):
                yield item
