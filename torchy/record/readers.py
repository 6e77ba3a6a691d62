"""Ways to look at a tensor, or to change how torch computes, that the walker does not see, in one table.

What goes through the dispatcher, and whoever asks torch for a mutable pointer, meets the walker anyway.
The rest reads through const pointers, or hands memory to something outside torch: these functions flush
first.
"""

from __future__ import annotations

import functools
import operator
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
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
    "share_memory_": True,
    "is_shared": False,
    "__reduce_ex__": False,
    "__deepcopy__": False,
}
FUNCTION_READERS: tuple[tuple[Any, str], ...] = (
    (torch, "to_dlpack"),
    (torch.utils.dlpack, "to_dlpack"),
    (torch._C, "_to_dlpack"),
    # minds weak references: the walker has some to pending tensors
    (torch._C, "_swap_tensor_impl"),
)

# methods of torch.UntypedStorage that replace memory or hand it out
STORAGE_READERS = ("resize_", "data_ptr")

# what calls a function in another process, or answers such a call; none if this torch is built without
REMOTE_CALLS: tuple[tuple[Any, str], ...] = (
    (
        (torch.distributed.rpc.internal._InternalRPCPickler, "serialize"),
        (torch.distributed.rpc.api, "_invoke_rpc_builtin"),
        (torch.distributed.rpc.api, "_invoke_rpc_torchscript"),
        (torch.distributed.rpc.api, "_invoke_remote_builtin"),
        (torch.distributed.rpc.api, "_invoke_remote_torchscript"),
    )
    if torch.distributed.is_available() and torch.distributed.rpc.is_available()
    else ()
)

# what writes tensors to a file, or sends them, as only C++ knows: everything is computed first
WHOLE_READERS: tuple[tuple[Any, str], ...] = (
    *(
        (owner, name)
        for owner in (torch._C.ScriptModule, torch._C.ScriptFunction)
        for name in ("save", "save_to_buffer", "_save_for_mobile", "_save_to_buffer_for_mobile")
    ),
    *REMOTE_CALLS,
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

HOOK = types.FunctionType | types.MethodDescriptorType | types.BuiltinFunctionType

Settle = Callable[[torch.Tensor, bool, str], None]
Before = Callable[..., None]


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
    hook
        ``hook(before, original)`` returns what calls the one, then the other, which is written in C.
    """

    def __init__(
        self,
        settle: Settle,
        settle_storage: Callable[[int, str], None],
        settle_all: Callable[[str], None],
        paused: Callable[[], AbstractContextManager[None]],
        registered: Callable[[], None],
        hook: Callable[[Before, Any], Any],
    ) -> None:
        self._registered = registered
        self._settle = settle
        self._paused = paused
        self._settle_storage = settle_storage
        self._settle_all = settle_all
        self._hook = hook
        self._replaced: list[
            tuple[Any, str, Any, Any]
        ] = []  # the hook; what was there, None: inherited
        self._hooks: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()  # the same
        self._native: dict[Any, Any] = {}  # functions of torch's in C: their hooks, for good
        self._native_hooks: dict[Any, Any] = {}  # as _hooks: these cannot be held weakly
        self._turn = 0
        # by owner, torch.Tensor first: what its hooks' names have, and should have
        self._installed: list[
            tuple[Mapping[str, Any], Callable[[Any], tuple[Any, ...]], tuple[Any, ...]]
        ] = []

    def install(self) -> None:
        """Put the hooks in place. They outlive sessions."""
        self._uninstall()  # also what an interrupt may have left
        for name, escapes in TENSOR_READERS.items():
            self._precede(torch.Tensor, name, self._before_method(name, escapes))
        for owner, name in FUNCTION_READERS:
            self._precede(owner, name, self._before_function(name))
        for owner, name in (*WHOLE_READERS, *SETTERS, *TELLERS):
            self._precede(owner, name, self._before_change(name))
        for name in STORAGE_READERS:
            self._precede(torch.UntypedStorage, name, self._before_storage_method(name))
        for owner, name in REGISTRARS:
            self._replace(owner, name, functools.partial(self._registrar, name))
        for owner, name, reason in PAUSED_READERS:
            self._replace(owner, name, functools.partial(self._paused_function, reason))
        hooks: dict[int, tuple[Any, list[str], list[Any]]] = {}
        for owner, name, hook, _ in self._replaced:
            _, names, expected = hooks.setdefault(id(owner), (owner, [], []))
            names.append(name)
            expected.append(hook)
        self._installed = [
            # twice the last: of one name alone it would not give a tuple
            (vars(owner), operator.itemgetter(*names, names[-1]), (*expected, expected[-1]))
            for owner, names, expected in hooks.values()
        ]

    def in_place(self) -> bool:
        """Tell whether the hooks are where they were put: the program may have put something else there.

        Looks at those of tensors each time, and at those of one of the other owners in turn: what is not in the caches
        takes long to look at.
        """
        if not self._installed:
            return False
        self._turn = 1 + self._turn % (len(self._installed) - 1)
        try:
            for place, get, expected in (self._installed[0], self._installed[self._turn]):
                if get(place) != expected:
                    return False
        except KeyError:
            return False
        return True

    def _uninstall(self) -> None:
        """Leave torch as it was; may be called again after an interrupt."""
        self._installed = []
        while self._replaced:
            owner, name, hook, own = self._replaced[-1]
            if vars(owner).get(name) is hook:  # else the program has put something else there
                _put_back(owner, name, own)
            self._replaced.pop()

    def _precede(self, owner: Any, name: str, before: Before) -> None:
        """Have ``before(*args)`` called before a function."""
        self._replace(owner, name, functools.partial(self._preceded, before))

    def _replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Have a hook, made of what is there, stand for a function, if there is one."""
        own = vars(owner).get(name)
        if isinstance(own, HOOK) and own in (known := self._known(own)):
            # the program had put something in place of an earlier hook, and took it off again later
            own = known[own]
            _put_back(owner, name, own)
        if hasattr(owner, name):
            hook = make(getattr(owner, name))
            self._known(hook)[hook] = own
            self._replaced.append((owner, name, hook, own))
            setattr(owner, name, hook)

    def _known(self, hook: Any) -> MutableMapping[Any, Any]:
        """Return the hooks of this one's kind, with what was there before."""
        return self._hooks if isinstance(hook, types.FunctionType) else self._native_hooks

    def _preceded(self, before: Before, original: Any) -> Any:
        if _is_native(original):  # leaves no frame: neither must the hook
            if original not in self._native:
                self._native[original] = self._hook(before, original)
            return self._native[original]

        @uncompiled
        @functools.wraps(original)
        def reader(*args: Any, **kwargs: Any) -> Any:
            before(*args)
            return original(*args, **kwargs)

        return reader

    def _before_method(self, name: str, escapes: bool) -> Before:
        settle, reason = self._settle, f"{name}()"

        @uncompiled
        def before(*args: Any) -> None:
            if args and isinstance(args[0], torch.Tensor):  # else torch itself raises
                settle(args[0], escapes, reason)

        return before

    def _before_function(self, name: str) -> Before:
        settle, reason = self._settle, f"{name}()"
        escapes = "dlpack" in name

        @uncompiled
        def before(*args: Any) -> None:
            for tensor in _tensors(args):
                settle(tensor, escapes, reason)

        return before

    def _before_change(self, name: str) -> Before:
        settle = self._settle_all

        @uncompiled
        def before(*_args: Any) -> None:
            settle(f"{name}()")

        return before

    def _before_storage_method(self, name: str) -> Before:
        settle, reason = self._settle_storage, f"UntypedStorage.{name}()"

        @uncompiled
        def before(*args: Any) -> None:
            if args and isinstance(args[0], torch.UntypedStorage):
                settle(args[0]._cdata, reason)

        return before

    def _paused_function(self, reason: str, original: Any) -> Any:
        settle, paused, look = self._settle, self._paused, f"{reason}()"

        @uncompiled
        @functools.wraps(original)
        def reader(*args: Any, **kwargs: Any) -> Any:
            for tensor in _tensors(args):
                settle(tensor, False, look)
            with paused():
                return original(*args, **kwargs)

        return reader

    def _registrar(self, name: str, original: Any) -> Any:
        preceded, registered = self._preceded(self._before_change(name), original), self._registered

        @uncompiled
        @functools.wraps(original)
        def registrar(*args: Any, **kwargs: Any) -> Any:
            try:
                return preceded(*args, **kwargs)
            finally:
                registered()

        return registrar


def _is_native(function: Any) -> bool:
    """Tell whether a function is one of torch's own that are written in C."""
    owner = function.__objclass__ if isinstance(function, types.MethodDescriptorType) else function
    native = owner is not function or isinstance(function, types.BuiltinFunctionType)
    return native and (owner.__module__ or "").partition(".")[0] == "torch"


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
