"""The walker as Python sees it: its library, loaded, and what it tells, typed."""

from __future__ import annotations

import ctypes
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from torchy.ir.trace import Source
from torchy.record import codes
from torchy.record.building import WalkerUnavailable
from torchy.record.source import LIBRARY_FOLDERS, OWN_FOLDERS

Handle = Any  # of a session of the walker's; what it did can be read as long as somebody has it
Held = Any  # a flush that the walker can run again


class Record(NamedTuple):
    """A trace that is being flushed: copies of what was recorded.

    Parameters
    ----------
    script
        The script that the walker runs by itself, or a :class:`.codes.ScriptId`.
    serial
        The flush's number in its session.
    at
        Where it stands in its program.
    visits
        How many flushes have ended at this place, this one included.
    refusals
        How often kernels were not launched a few times in a row.
    program, size
        Address and words of the program by which it is interpreted.
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
    visits: int
    refusals: int
    program: int
    size: int
    path: list[int]
    words: bytes
    numbers: bytes
    times: bytes
    flags: bytes


class Unplanned(NamedTuple):
    """What is known of a flush that no script has run: path and flags as in :class:`Record`, and why and where."""

    path: list[int]
    flags: bytes
    reason: int
    text: str
    line: int
    variant: int


class Repeat(NamedTuple):
    """A flush that the walker has run by itself, as raw words: see :class:`Record`.

    ``began`` is by ``perf_counter_ns()``; ``held_bytes`` is what it holds that others do not. ``times`` are by step of its
    script's program, by op if it is unplanned.
    """

    origin: int | Unplanned
    began: int
    nanoseconds: int
    bytes_saved: int
    held_bytes: int
    words: bytes
    numbers: bytes
    times: bytes


class RepeatSum(NamedTuple):
    """Flushes of one script (or of none: ``ScriptId.NO_SCRIPT``) whose own records have been dropped."""

    script: int
    flushes: int
    ops: int
    nanoseconds: int
    bytes_saved: int


class RanNow(NamedTuple):
    """Runs at once of one op on one line (-1: not known) for one reason; estimated from some of them, if there are many.

    ``began``: the first of them, in nanoseconds by ``perf_counter_ns()``.
    """

    name: str
    line: int
    why: int
    began: int
    times: int
    nanoseconds: int


class Counters(NamedTuple):
    """What a session has done so far, in numbers."""

    recorded: int = 0
    run_now: int = 0
    places: int = 0
    layouts: int = 0
    policy_calls: int = 0
    flushes: int = 0
    views: int = 0
    repeated: int = 0
    interpreted: int = 0
    drawn: int = 0  # of those that ran now: random numbers, made by the block


class Walker:
    """The loaded walker: its functions, typed. One a process, since torch's dispatcher is one.

    Parameters
    ----------
    library
        What :func:`torchy.record.building.build` returned.
    answer
        Called for what only Python can decide or do: ``answer(what, session, argument, text)``
        gives a number. What it raises arrives in the program.
    tiny_op
        The seconds that eager takes for an op on a few elements.
    recordable
        The names of torch's ops that may be recorded, without overload.
    """

    def __init__(
        self,
        library: Path,
        answer: Callable[[int, int, int, str], int],
        tiny_op: float,
        recordable: Sequence[str],
    ) -> None:
        try:
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        except OSError as error:
            raise WalkerUnavailable(
                f"Torchy cannot load its walker: {error}. Delete {library} to have it built anew, or "
                "name another folder with torchy.enable(cache_dir=...) or $XDG_CACHE_HOME."
            ) from error
        with_gil = ctypes.PyDLL(str(library))
        hook: Any = with_gil.torchy_hook
        hook.restype, hook.argtypes = _HOOK
        self._hook = _recursing(hook)
        call: Any = with_gil.torchy_call
        call.restype, call.argtypes = _OBJECT, (_TEXT,)
        self.codes: Callable[[], str] = call(b"codes")
        self._require_same_codes(library, self.codes())
        loaded = ctypes.CDLL(str(library))
        self.library = types.SimpleNamespace()
        for name, result, *arguments in _FUNCTIONS:
            function: Any = loaded[f"torchy_{name}"]
            function.restype, function.argtypes = result, arguments
            setattr(self.library, f"torchy_{name}", _recursing(function))
        self.open: Callable[[int, int, int, int, bool, bool, int], Handle] = call(b"open")
        self.place_here: Callable[[], int] = call(b"place_here")
        self.rested_here: Callable[[int], None] = call(b"rested_here")
        self.close: Callable[[Handle], int] = call(b"close")
        self.never: Callable[[Handle, str], None] = call(b"never")
        self.set: Callable[[Handle, int, bool, bool, bool, bool, bool], None] = call(b"set")
        self.nap: Callable[[Handle], None] = call(b"nap")
        self.record_into: Callable[[Handle], None] = call(b"record_into")
        self.record_no_more: Callable[[], None] = call(b"record_no_more")
        self.flush: Callable[[Handle, str], int] = call(b"flush")
        self.flush_here: Callable[[str], int] = call(b"flush_here")
        self.settle: Callable[[int, bool, str], int] = call(b"settle")
        self.prepare: Callable[[], int] = call(b"prepare")
        self.release_memory: Callable[[], int] = call(b"release_memory")
        self.set_most_places: Callable[[int], None] = call(b"set_most_places")
        self.places: Callable[[], int] = call(b"places")
        self.line_here: Callable[[], int] = call(b"line_here")
        self.origin: Callable[[int], int] = call(b"origin")
        self._tell_line: Callable[[int], tuple[str, int]] = call(b"tell_line")
        self.remember: Callable[..., int] = call(b"remember")
        self._counters: Callable[[Handle], tuple[int, ...]] = call(b"counters")
        self._running: Callable[[int], tuple[Any, ...] | None] = call(b"running")
        self._owing: Callable[[int, bool], list[int]] = call(b"owing")
        self._storage: Callable[[int], int] = call(b"storage")
        self._is_pending: Callable[[int], int] = call(b"is_pending")
        self._take_log: Callable[[Handle], tuple[list[Any], ...]] = call(b"take_log")
        self.hold: Callable[[int, int], Held] = call(b"hold")
        self.memory: Callable[[int, int], bytes] = call(b"memory")
        self.suspects: Callable[[int, int], int] = call(b"suspects")
        self.hunt_no_more: Callable[[Handle], None] = call(b"hunt_no_more")
        self.add_checks: Callable[[int, int, bytes], None] = call(b"add_checks")
        self.keep_inputs: Callable[[int, int], None] = call(b"keep_inputs")
        self.forget_inputs: Callable[[int, int], None] = call(b"forget_inputs")
        self.hash: Callable[[int, int], bytes] = call(b"hash")
        self.odd: Callable[[int, int, bytes], int] = call(b"odd")
        self.replay_give: Callable[[Held, int, int], None] = call(b"replay_give")
        self.replay_run: Callable[[Held, int, bytes], int] = call(b"replay_run")
        self.replay_memory: Callable[[Held], bytes] = call(b"replay_memory")
        self.replay_give_all: Callable[[Held], None] = call(b"replay_give_all")
        self.replay_let_go: Callable[[Held], None] = call(b"replay_let_go")
        self.replay_drop: Callable[[Held], None] = call(b"replay_drop")
        self.tiny_call: Callable[[], int] = call(b"tiny_call")
        self.birth: Callable[[Handle], tuple[Any, ...] | None] = call(b"birth")
        call(b"set_folders")(OWN_FOLDERS, LIBRARY_FOLDERS)
        call(b"set_recordable")(recordable)
        self._python_side = torch.library.Library("torchy", "IMPL")  # type: ignore[no-untyped-call]
        self._python_side.impl("ask", answer, "CompositeImplicitAutograd")  # type: ignore[no-untyped-call]
        self.library.torchy_listen(tiny_op)
        self.execute = torch.ops.torchy.execute.default
        self.describe_node = torch.ops.torchy.describe_node.default
        self.describe_step = torch.ops.torchy.describe_step.default

    @staticmethod
    def _require_same_codes(library: Path, told: str) -> None:
        records: dict[str, Sequence[str]] = {
            "Counters": Counters._fields,
            "Record": Record._fields,
            "functions": [f"{name}={_letters(*types)}" for name, *types in _FUNCTIONS],
        }
        found = list(codes.differences(told, records))
        if found:
            raise WalkerUnavailable(
                f"The walker is not the one of this Torchy: {'; '.join(found)}. Delete {library} to "
                "have it built anew."
            )

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
        return self._owing(storage, written)

    def is_pending(self, tensor: torch.Tensor) -> bool:
        """Return True if a tensor's values have not been computed yet."""
        return bool(self._is_pending(address_of(tensor)))

    def storage(self, tensor: torch.Tensor) -> int | None:
        """Return the address of a tensor's storage, if it has one."""
        return self._storage(address_of(tensor)) or None

    def source(self, line: int) -> Source | None:
        """Return the file and line of what the walker knows by a number."""
        return Source(*self._tell_line(line)) if line >= 0 else None

    def take_log(self, session: Handle) -> tuple[list[Repeat], list[RepeatSum], list[RanNow]]:
        """Take from the walker what it has flushed by itself (the newest, and sums of the others), and what ran at once."""
        records, sums, ran_now = self._take_log(session)
        return (
            [_repeat(*record) for record in records],
            [RepeatSum(*entry) for entry in sums],
            [RanNow(*entry) for entry in ran_now],
        )

    def running(self, session: int) -> Record | None:
        """Return the trace that is being flushed, if one is."""
        told = self._running(session)
        if told is None:
            return None
        record = Record._make(told)
        path: Any = record.path  # as words
        return record._replace(path=memoryview(path).cast("q").tolist())

    def counters(self, session: Handle) -> Counters:
        """Return a session's counters."""
        return Counters(*self._counters(session))


def _repeat(origin: Any, *rest: Any) -> Repeat:
    """Read a raw record."""
    if isinstance(origin, int):
        return Repeat(origin, *rest)
    path, *others = origin
    return Repeat(Unplanned(memoryview(path).cast("q").tolist(), *others), *rest)


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


def address_of(tensor: torch.Tensor) -> int:
    """Return where a tensor lies, for the walker; the program's modes do not see that it is read."""
    with torch._C.DisableTorchFunction():
        return tensor._cdata


_INT, _TEXT, _VOID = ctypes.c_int64, ctypes.c_char_p, None
_BITS, _POINTER = ctypes.c_uint64, ctypes.c_void_p
_OBJECT = ctypes.py_object
_HOOK = (_OBJECT, (_TEXT, _TEXT, _OBJECT, _OBJECT, _INT, _OBJECT, _OBJECT))
# name, result, arguments: those of api.cpp, which tells what its own are
_FUNCTIONS = (
    ("listen", _VOID, ctypes.c_double),
    ("set_planning", _VOID, ctypes.c_double),
    ("renew", _VOID, _TEXT),
    ("set_op", _VOID, *[_INT] * 5, *[_BITS] * 3, *[_INT] * 7),
    ("attach", _VOID, _INT),
    ("forget", _INT, _INT),
    ("pause", _VOID, _INT),
    ("hold_flushes", _VOID, _INT),
    ("flushes", _INT, _INT),
    ("begin", _INT, _INT),
    ("leave", _VOID, _INT),
    ("finish", _INT, _INT, _INT, _INT),
    ("put_off", _VOID, _INT, _INT),
    ("weigh", _INT, _INT, _INT, _INT, _INT, _INT),
    ("only_walks", _INT, _INT),
    ("escaped", _VOID, _POINTER),
)
_LETTERS = {_INT: "i", _TEXT: "t", _VOID: "v", _BITS: "u", _POINTER: "p", ctypes.c_double: "d"}


def _letters(*types: Any) -> str:
    """Return a function's signature in letters, the result first."""
    return "".join(_LETTERS[kind] for kind in types)
