"""The walker, built and loaded: compiled on first use for the torch that is installed, and cached."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

HERE = Path(__file__).parent
MAIN = HERE / "walker.cpp"
FLAGS = (
    "-O1",
    "-std=c++20",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
)  # -O2 takes longer, and gains nothing


class WalkerUnavailable(RuntimeError):
    """The walker cannot be built or loaded here; the message says what to do about it."""


class Record(NamedTuple):
    """A trace that is being flushed, or was by the walker alone: copies of what was recorded.

    Parameters
    ----------
    script
        The script that the walker runs by itself, or -1.
    serial
        The flush's number in its session.
    at
        Where it stands in its program.
    seconds, call_seconds
        What it took in all, and in calls of torch's ops.
    path
        The ids of the nodes.
    words, numbers, times
        Sizes and strides, raw numbers, and nanoseconds by step of the program: int64 each.
    flags
        A byte for each slot.
    """

    script: int
    serial: int
    at: int
    seconds: float
    call_seconds: float
    path: list[int]
    words: bytes
    numbers: bytes
    times: bytes
    flags: bytes


class Counters(NamedTuple):
    """What a session has done so far, in numbers."""

    recorded: int
    run_now: int
    places: int
    layouts: int
    policy_calls: int
    flushes: int
    views: int
    repeated: int


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder where the walker is kept."""
    if cache_dir is not None:
        return Path(cache_dir)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "torchy"


def _torch_folder() -> Path:
    return Path(torch.__file__).parent


def compiler() -> str | None:
    """Return the C++ compiler that would be used (``$CXX``, else ``g++``, else ``clang++``)."""
    for name in (os.environ.get("CXX"), "g++", "clang++"):
        if name and shutil.which(name):
            return name
    return None


def library_path(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return where the walker for this torch, these sources and this machine is kept."""
    content = hashlib.sha256()
    for source in (MAIN, *sorted(HERE.glob("*.h"))):
        content.update(source.read_bytes())
    content.update(f"{torch.__version__} {platform.machine()} {_torch_folder()} {FLAGS}".encode())
    return cache_folder(cache_dir) / f"walker-{content.hexdigest()[:16]}.so"


def _intact(library: Path) -> bool:
    """Tell whether a built walker is what was built: its digest lies beside it."""
    digest = library.with_suffix(".sha256")
    try:
        return digest.read_bytes() == hashlib.sha256(library.read_bytes()).hexdigest().encode()
    except OSError:
        return False


def is_built(cache_dir: str | os.PathLike[str] | None = None) -> bool:
    """Return True if the walker need not be compiled any more."""
    return _intact(library_path(cache_dir))


def build(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Compile the walker if that has not been done; several processes may start at once.

    Returns
    -------
    Path
        The shared library.

    Raises
    ------
    WalkerUnavailable
        If this platform is not supported, there is no compiler, or it fails.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise WalkerUnavailable(
            f"Torchy runs on Linux x86-64 so far, not on {sys.platform} {platform.machine()}: "
            "cells run eagerly."
        )
    library = library_path(cache_dir)
    if _intact(library):
        return library
    command = compiler()
    if command is None:
        raise WalkerUnavailable(
            "Torchy compiles its walker on first use and found no C++ compiler: install one "
            "(apt install g++, dnf install gcc-c++, conda install cxx-compiler) or name it in "
            "$CXX. Until then cells run eagerly."
        )
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with open(library.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _intact(library):
                _compile(command, library)
    except OSError as error:
        raise WalkerUnavailable(
            f"Torchy cannot keep its walker in {library.parent}: {error}. Name a folder that can "
            "be written with torchy.enable(cache_dir=...) or $XDG_CACHE_HOME."
        ) from error
    return library


def _compile(command: str, library: Path) -> None:
    torch_folder = _torch_folder()
    include = torch_folder / "include"
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        built = Path(scratch) / library.name
        run = subprocess.run(
            [
                command, *FLAGS,
                "-isystem", str(include),
                "-isystem", str(include / "torch" / "csrc" / "api" / "include"),
                str(MAIN), "-o", str(built),
                f"-L{torch_folder / 'lib'}", "-ltorch_cpu", "-lc10",
                f"-Wl,-rpath,{torch_folder / 'lib'}",
            ],
            capture_output=True,
            text=True,
        )  # fmt: skip
        if run.returncode != 0:
            errors = [line for line in run.stderr.splitlines() if "error" in line][:5]
            raise WalkerUnavailable(
                f"{command} could not compile the walker for torch {torch.__version__}:\n"
                + "\n".join(errors or run.stderr.splitlines()[-5:])
            )
        digest = Path(scratch) / "digest"
        digest.write_text(hashlib.sha256(built.read_bytes()).hexdigest())
        os.replace(built, library)
        os.replace(digest, library.with_suffix(".sha256"))


class Walker:
    """The loaded walker: its functions, typed. One a process, since torch's dispatcher is one.

    Parameters
    ----------
    library
        What :func:`build` returned.
    answer
        Called for what only Python can decide or do: ``answer(what, session, argument, text)``
        gives a number. What it raises arrives in the program.
    """

    def __init__(self, library: Path, answer: Callable[[int, int, int, str], int]) -> None:
        try:
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        except OSError as error:
            raise WalkerUnavailable(
                f"Torchy cannot load its walker: {error}. Delete {library} to have it built anew, or "
                "name another folder with torchy.enable(cache_dir=...) or $XDG_CACHE_HOME."
            ) from error
        loaded = ctypes.CDLL(str(library))
        self.library = types.SimpleNamespace()
        for name, result, *arguments in _FUNCTIONS:
            function: Any = loaded[f"torchy_{name}"]
            function.restype, function.argtypes = result, arguments
            setattr(self.library, f"torchy_{name}", _recursing(function))
        hook: Any = ctypes.PyDLL(str(library)).torchy_hook  # the only one that needs the GIL
        hook.restype, hook.argtypes = _HOOK
        self._hook = _recursing(hook)
        self._python_side = torch.library.Library("torchy", "IMPL")  # type: ignore[no-untyped-call]
        self._python_side.impl("ask", answer, "CompositeImplicitAutograd")  # type: ignore[no-untyped-call]
        self.library.torchy_listen()
        self.execute = torch.ops.torchy.execute.default
        self.describe_node = torch.ops.torchy.describe_node.default
        self.describe_step = torch.ops.torchy.describe_step.default

    def hook(self, before: Callable[..., None], original: Any) -> Any:
        """Return what calls ``before(*args)``, then a function or method written in C, and looks like that.

        It leaves no frame, so what torch warns of is the program's line. It is kept for ever.
        """
        is_method = isinstance(original, types.MethodDescriptorType)
        owner = original.__objclass__ if is_method else original.__self__
        name, doc = original.__name__.encode(), (original.__doc__ or "").encode()
        module = getattr(original, "__module__", None)
        return self._hook(name, doc, before, original, is_method, owner, module)

    def storage_owing(self, storage: int, written: bool) -> list[int]:
        """Return the sessions that must flush before a storage is read, or written, from outside."""
        out = (ctypes.c_int64 * 16)()
        return out[: self.library.torchy_owing(storage, written, out, len(out))]

    def is_pending(self, tensor: torch.Tensor) -> bool:
        """Return True if a tensor's values have not been computed yet."""
        return bool(self.library.torchy_is_pending(address_of(tensor)))

    def storage(self, tensor: torch.Tensor) -> int | None:
        """Return the address of a tensor's storage, if it has one."""
        return self.library.torchy_storage(address_of(tensor))  # type: ignore[no-any-return]

    def take_stray_bit(self, tensor: torch.Tensor) -> None:
        """Let a tensor go that is not pending any more, or never was."""
        self.library.torchy_take_stray_bit(address_of(tensor))

    def running(self, session: int) -> Record | None:
        """Return the trace that is being flushed, if one is."""
        return self._read(self.library.torchy_running, session)

    def log(self, session: int) -> Iterator[Record]:
        """Take from the walker what it has flushed by itself."""
        while record := self._read(self.library.torchy_take_record, session):
            yield record

    def _read(self, function: Any, session: int) -> Record | None:
        out = (ctypes.c_int64 * 15)()
        record = function(session, out)
        if not record:
            return None
        script, serial, at, nanoseconds, called, *arrays = out
        try:
            path, words, numbers, times, flags = (
                _bytes_at(address, size)
                for address, size in zip(arrays[::2], arrays[1::2], strict=True)
            )
        finally:
            self.library.torchy_free_record(record)
        return Record(
            script, serial, at, nanoseconds * 1e-9, called * 1e-9,
            memoryview(path).cast("q").tolist(), words, numbers, times, flags,
        )  # fmt: skip

    def counters(self, session: int) -> Counters:
        """Return a session's counters."""
        out = (ctypes.c_int64 * 8)()
        self.library.torchy_counters(session, out)
        return Counters(*out)


def _recursing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have a C function raise ``RecursionError`` at the limit, which ctypes makes an error of arguments."""

    def call(*arguments: object) -> Any:
        try:
            return function(*arguments)
        except ctypes.ArgumentError as error:
            kind, _, message = str(error).rpartition("RecursionError: ")
            if not kind:
                raise
            raise RecursionError(message) from None

    return call


_bytes_at = _recursing(ctypes.string_at)


def address_of(tensor: torch.Tensor) -> int:
    """Return where a tensor lies, for the walker; the program's modes do not see that it is read."""
    with torch._C.DisableTorchFunction():
        return tensor._cdata


_INT, _TEXT, _VOID = ctypes.c_int64, ctypes.c_char_p, None
_POINTER = ctypes.c_void_p
_OBJECT = ctypes.py_object
_HOOK = (_OBJECT, (_TEXT, _TEXT, _OBJECT, _OBJECT, _INT, _OBJECT, _OBJECT))
_FUNCTIONS = (
    ("listen", _VOID),
    ("claim", _VOID),
    ("renew", _VOID, _TEXT),
    ("libraries", _INT),
    ("set_op", _VOID, *[_INT] * 4, *[ctypes.c_uint64] * 3),
    ("open", _VOID, _INT, _INT, _INT, _INT),
    ("attach", _VOID, _INT),
    ("close", _VOID, _INT),
    ("forget", _INT, _INT),
    ("pause", _VOID, _INT),
    ("hold_flushes", _VOID, _INT),
    ("flushes", _INT, _INT),
    ("begin", _INT, _INT),
    ("leave", _VOID, _INT),
    ("finish", _INT, _INT, _INT),
    ("tune", _VOID, _INT, _INT),
    ("remember", _INT, _INT, _INT, _TEXT, _INT, _INT, _INT, _INT),
    ("take_record", _POINTER, _INT, _POINTER),
    ("free_record", _VOID, _POINTER),
    ("running", _POINTER, _INT, _POINTER),
    ("owing", _INT, _POINTER, _INT, _POINTER, _INT),
    ("storage", _POINTER, _POINTER),
    ("is_pending", _INT, _POINTER),
    ("take_stray_bit", _VOID, _POINTER),
    ("escaped", _VOID, _POINTER),
    ("counters", _VOID, _INT, _POINTER),
    ("owes", _INT, _INT),
)
