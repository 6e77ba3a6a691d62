"""Random programs: drawn by hypothesis, run eagerly and under Torchy, and compared.

A program is a list of statements. Each is tried eagerly while the program is drawn, so that most of them work; a few
that raise are kept, since what they raise is compared too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import linecache
import random
import re
import resource
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import torch
from hypothesis import strategies

sys.path.append(str(Path(__file__).parents[1] / "semantics"))

import allocator
import grammar
from facts import END, Facts, differences, facts_of
from sameness import failures, process_state, reset

TIERS = ("never", "always", "auto")
NAME = "<random program>"
MOST_TENSORS = 12
MOST_ELEMENTS = 1_000_000
MOST_MEMORY = 2 << 30  # bytes for one statement: a large column times a row would take 12 GB
_WORD = re.compile(r"(\b\w+\b)")
_PREAMBLE = compile(grammar.PREAMBLE, "<preamble>", "exec")
_FAMILIES = [family for family, weight in grammar.FAMILIES for _ in range(weight)]


@dataclasses.dataclass(frozen=True)
class Program:
    """Statements, how many of them come before the session, and the session's settings."""

    lines: tuple[str, ...]
    before: int
    settings: dict[str, object]

    def to_json(self) -> str:
        """Return it as a line of text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Program:
        """Return the program of such a line."""
        fields = json.loads(text)
        return cls(tuple(fields["lines"]), fields["before"], fields["settings"])

    def block(self, start: int, end: int) -> str:
        """Return the text of some statements: each notes its own error."""
        texts = []
        for index in range(start, end):
            line = self.lines[index]
            texts += ["try:", f"    {line}"]
            if is_observation(line):
                texts.append("    look()")
            texts += ["except Exception as error:",
                      f"    log.append(({index}, type(error), str(error)))"]  # fmt: skip
        return "\n".join(texts) + "\n"

    def script(self, tier: str) -> str:
        """Return the program as a script that can be run by itself."""
        settings = "".join(f", {name}={value!r}" for name, value in self.settings.items())
        inside = self.block(self.before, len(self.lines))
        lines = [grammar.PREAMBLE, "torch.manual_seed(1)", self.block(0, self.before)]
        lines += ["import torchy", f"with torchy.lazy(compile={tier!r}{settings}):  # or: if True:"]
        lines += ["    " + line for line in inside.splitlines()]
        return "\n".join([*lines, "look()", "print(*log, *arrays, sep='\\n')"])

    def __repr__(self) -> str:
        lines = "".join(f"\n    {line}" for line in self.lines)
        return f"{self.settings}, {self.before} statements before the session{lines}"


# whether flushes are looked at: see torchy.Settings
WATCHES = [
    {},
    {},
    {},
    {"nan": True},
    {"keep": "1MiB"},
    {"compare": True, "nan": True, "keep": "8MiB"},
]


def is_observation(line: str) -> bool:
    """Tell whether a statement may look at values, so that everything is looked at after it."""
    return line.startswith(("log.append", "arrays", "assert", "in_thread"))


class Draft:
    """A program while it is drawn: its statements so far, run eagerly."""

    def __init__(self) -> None:
        reset()
        self.lines: list[str] = []
        self.state: dict[str, object] = {}
        exec(_PREAMBLE, self.state)
        self.names: list[str] = []
        self.largest = 0
        self.lent: list[tuple[torch.UntypedStorage, int]] = []  # to NumPy, and where it lay then

    def attempt(self, line: str, keep: bool = False) -> None:
        """Run a statement and take it into the program, unless it raises."""
        failed = None
        try:
            with memory_limit(MOST_MEMORY):
                exec(line, self.state)
                if is_observation(line):
                    self.state["look"]()
        except Exception as error:
            failed = error
        found = tensors_in(self.state)
        hypothesis.assume(all(map(is_sound, found.values())))  # also after what has raised
        if failed is not None and (not keep or "allocate memory" in str(failed)):
            return
        self.lines.append(line)
        # eager frees what NumPy has by DLPack, when an out= is resized
        hypothesis.assume(all(storage.data_ptr() == at for storage, at in self.lent))
        lent = [array.ctypes.data for array in self.state["arrays"]]
        storages = [(s, s.data_ptr()) for s in (t.untyped_storage() for t in found.values())]
        self.lent = [(s, at) for s, at in storages if any(at <= a < at + s.nbytes() for a in lent)]
        hypothesis.assume(sum(value.numel() for value in found.values()) < MOST_ELEMENTS)
        del found["ZERO"]
        small = [name for name, value in found.items() if value.numel() <= self.largest]
        self.names = small[-MOST_TENSORS:]


@contextlib.contextmanager
def memory_limit(size: int) -> Iterator[None]:
    """Let the process have so many bytes of address space more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, hard = before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def is_sound(t: torch.Tensor) -> bool:
    """Tell whether a tensor can be looked at, and lies within its storage.

    It cannot if it is one of several views whose base was written to since. It does not where an ``out=`` could not be
    resized since NumPy shares its memory: eager then reads and writes beyond it.
    """
    try:
        _ = t.grad_fn
    except RuntimeError:
        return False
    if t.numel() == 0:
        return True
    last = sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True))
    return (t.storage_offset() + last + 1) * t.itemsize <= t.untyped_storage().nbytes()


@functools.cache
def words_of(template: str) -> list[str]:
    """Split a statement into names and what is between them."""
    return _WORD.split(template)


@strategies.composite
def statements(draw: Callable, names: list[str], number: int) -> str:
    """Draw a statement over the given tensors."""
    family = draw(strategies.sampled_from(_FAMILIES))
    template = draw(strategies.sampled_from(family))
    chosen: dict[str, str] = {}

    def fill(word: str) -> str:
        if word in ("x", "y", "z"):
            if word not in chosen:
                chosen[word] = draw(strategies.sampled_from(names))
            return chosen[word]
        if word == "N":
            return draw(strategies.sampled_from(grammar.NUMBERS))
        if word == "M":
            return str(draw(strategies.integers(0, 5)))
        return word

    text = "".join(map(fill, words_of(template)))
    if any(family is expressions for expressions in grammar.EXPRESSIONS):
        text = f"{draw(strategies.sampled_from([f'v{number}', f'v{number}', *names]))} = {text}"
    return text


@strategies.composite
def programs(draw: Callable, most: int = 40) -> Program:
    """Draw a program of at most so many statements, after those that make its first tensors."""
    rows, columns = draw(strategies.sampled_from(grammar.SHAPES))
    random_state = random.getstate()  # hypothesis's own
    with quiet():
        draft = Draft()
        draft.state.update(R=rows, C=columns)
        draft.largest = max(8 * rows * columns, 200)
        draft.lines.append(f"R, C = {rows}, {columns}")
        firsts = [grammar.MATRICES, grammar.MATRICES, *[grammar.MATRICES + grammar.OTHERS] * 4]
        for name, makers in zip("abcdef", firsts, strict=True):
            draft.attempt(f"{name} = {draw(strategies.sampled_from(makers))}")
        begun = len(draft.lines)
        for number in range(draw(strategies.integers(1, most))):
            keep = draw(strategies.integers(0, 7)) == 7
            draft.attempt(draw(statements(draft.names or ["a"], number)), keep)
    random.setstate(random_state)
    before = draw(strategies.sampled_from([0, 0, begun, begun, begun + 3]))
    settings = {}
    longest = draw(strategies.sampled_from([None, None, None, 3, 10]))
    if longest is not None:
        settings["max_ops"] = longest
    settings |= draw(strategies.sampled_from(WATCHES))
    return Program(tuple(draft.lines), min(before, len(draft.lines)), settings)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let warnings, and what threads die of, pass unseen."""
    hook, threading.excepthook = threading.excepthook, lambda arguments: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        threading.excepthook = hook


def as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    """Leave what a region is given as it is."""
    return tensor


def lying_otherwise(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor with the same elements, whose memory is in another order."""
    return tensor.mT.clone(memory_format=torch.contiguous_format).mT if tensor.dim() > 1 else tensor


def shorter(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor without the last of its columns."""
    return tensor[..., :-1].clone() if tensor.dim() > 0 and tensor.shape[-1] > 1 else tensor


# At each visit, what is done to the tensors that are there before the region begins: at the same places, the
# same ops come with other layouts, and with other sizes, or raise.
VISITS: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
    as_it_is,
    as_it_is,
    lying_otherwise,
    as_it_is,
    shorter,
    lying_otherwise,
)


def run(
    program: Program,
    region: contextlib.AbstractContextManager,
    change: Callable[[torch.Tensor], torch.Tensor] = as_it_is,
) -> tuple[Facts, object]:
    """Run a program, from some statement on in a region; return all facts about what it left, and the session."""
    state: dict[str, object] = {}
    exec(_PREAMBLE, state)
    outside = program.block(0, program.before)
    inside = program.block(program.before, len(program.lines))
    linecache.cache[NAME] = (len(inside), None, inside.splitlines(True), NAME)
    session, before, error = None, {}, None
    reset()
    with quiet():
        exec(compile(outside, "<before the session>", "exec"), state)
        for name, tensor in tensors_in(state).items():
            if name != "ZERO" and not tensor.requires_grad:
                state[name] = change(tensor)
        try:
            with region as session:
                exec(compile(inside, NAME, "exec"), state)
                before = facts_of(tensors_in(state), look=False)
        except Exception as raised:  # by the session itself: each statement notes its own
            error = f"{type(raised).__name__}: {raised}"
    after = facts_of([tensors_in(state), state["arrays"], state["log"]], look=error is None)
    return {"inside": before, "state": process_state(), END: error, **after}, session


def tensors_in(state: dict[str, object]) -> dict[str, torch.Tensor]:
    """Return a program's tensors by name."""
    return {name: value for name, value in state.items() if type(value) is torch.Tensor}


def compare(expected: Facts, seen: Facts) -> list[str]:
    """Return how the facts about two runs differ."""
    found = [f"inside: {line}" for line in differences(expected["inside"], seen["inside"])]
    rest = [{k: v for k, v in facts.items() if k != "inside"} for facts in (expected, seen)]
    return found + differences(*rest)


def disagreement(
    program: Program, tier: str, visits: int = len(VISITS), watch: Callable | None = None
) -> list[str]:
    """Return how a program's outcomes under Torchy differ from eager's.

    Parameters
    ----------
    visits
        How often it runs: at the first visit its places are new, then they are known.
    watch
        Called with each session once it has ended.
    """
    import torchy

    # every second program is interpreted at all its visits, else second ones are planned
    seconds = 1.0 if len(program.lines) % 2 else 0.0
    torchy.face._process.get().walker.library.torchy_set_planning(seconds)
    eager: dict[Callable, Facts] = {}
    for visit, change in enumerate(VISITS[:visits]):
        if change not in eager:
            eager[change], _ = run(program, contextlib.nullcontext(), change)
        lazily, session = run(program, torchy.lazy(compile=tier, **program.settings), change)
        if watch is not None:
            watch(session)
        found = compare(eager[change], lazily) + failures(session) + unequal(session)
        if found:
            return [f"visit {visit}: {line}" for line in found]
    return []


def unequal(session: object) -> list[str]:
    """Return where eager, run beside a session that compares, had other bits."""
    if not session.settings.compare or session.watch is None:
        return []
    return [f"eager beside it: {row.text}" for row in session.comparison if not row.equal]


def is_steady(program: Program) -> bool:
    """Tell whether eager gives the same outcomes each time (it does not where it reads unwritten memory)."""
    return all(
        allocator.is_steady(lambda: run(program, contextlib.nullcontext(), change)[0], compare)  # noqa: B023
        for change in dict.fromkeys(VISITS)
    )
