"""What makes a notebook cell run under Torchy: an input transformer, an AST transformer and events.

``%%torchy`` becomes a call on its own line, so all other lines keep their numbers; the last
expression is wrapped, so that the flush happens inside the cell and what fails there fails the cell
on a line of it; ``post_run_cell`` cleans up, after an exception or an interrupt too.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import linecache
import os
import re
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display

import torchy
from torchy.explain import EagerCosts
from torchy_jupyter.explorer import CellSource, Explorer, Raised
from torchy_jupyter.explorer.words import AT_END
from torchy_jupyter.progress import Progress

BEGIN, END = "__torchy_begin__", "__torchy_end__"
MARKER = "%%torchy"
MEASURED = {  # the names that IPython gives to what it measures, and the magics that do
    "<timed exec>": "time",
    "<timed eval>": "time",
    "<magic-timeit>": "timeit",
    "<string>": "prun",
}
MOST_SHOWN = 32  # explorers that live in the kernel; older ones leave their static copies
MOST_TEXTS = 2000  # of cells, that the explorer can show
LARGE = 1 << 20  # bytes of a result in `Out` from which on the explorer says that it is kept


@dataclass(frozen=True, slots=True)
class Options:
    """What was written behind ``%%torchy`` or ``%torchy on``: settings of the session, and quiet."""

    settings: dict[str, Any] = field(default_factory=dict)
    quiet: bool = False


@dataclass(slots=True)
class Running:
    """The cell that runs under a session. ``info`` is IPython's; a nested cell has another one."""

    session: torchy.Session
    options: Options
    info: Any
    began: float
    marked: bool  # by the cell's own first line
    compiled: bool  # the cell itself; what IPython compiles from here on is a part of it
    measures: bool = False  # it has a `%time`, `%timeit` or `%prun`
    kept: int = 0  # bytes of the result that `Out` keeps
    progress: Progress | None = None


class Cells:
    """Hooks into one shell; the state of what runs in it.

    Parameters
    ----------
    shell
        The shell to hook into.
    parse
        Makes options of the text behind ``%%torchy``; raises ``UsageError`` for what it does not know.
    """

    def __init__(self, shell: InteractiveShell, parse: Callable[[str], Options]) -> None:
        self.shell = shell
        self.parse = parse
        self.always: Options | None = None  # the options of `%torchy on`
        self.running: Running | None = None
        self.last: Explorer | None = None
        self.receipt: torchy.Receipt | None = None
        self._shown: deque[Explorer] = deque()
        self._costs = EagerCosts()
        self.sources: dict[str, CellSource] = {}
        self._info: Any = None
        self._wrapper = WrapLastExpression(
            before_part=self.before_part,
            shows_assigned=lambda: shell.ast_node_interactivity == "last_expr_or_assign",
        )
        formatter: Any = shell.display_formatter
        self._formatter = formatter
        self._format: Callable[..., Any] = formatter.format
        profiles: Any = shell.magics_manager.registry["ExecutionMagics"]
        self._profiles = profiles
        # IPython's own: without it, %prun does not measure the last flush
        self._run_with_profiler: Any = getattr(profiles, "_run_with_profiler", None)
        self._told_why_eager = False

    # -- hooking in and out

    def install(self) -> None:
        """Put every hook into the shell."""
        shell = self.shell
        vars(builtins)[BEGIN] = self.begin  # there, not in the user's namespace: survives %reset
        vars(builtins)[END] = self.end
        shell.input_transformers_cleanup.append(self.replace_first_line)
        shell.ast_transformers.append(self._wrapper)
        shell.events.register("pre_run_cell", self.before)
        shell.events.register("post_run_cell", self.after)
        self._formatter.format = self.format
        if self._run_with_profiler is not None:
            self._profiles._run_with_profiler = self.profile
        self._remember_cells_run_before()

    def remove(self) -> None:
        """Undo every line of :meth:`install`, and end a session that is running."""
        shell = self.shell
        self.always = None
        if self.running is not None:
            self._finish("the extension is unloaded")
        del self._formatter.format  # the instance's; the class has its own
        if self._run_with_profiler is not None:
            del self._profiles._run_with_profiler
        shell.events.unregister("post_run_cell", self.after)
        shell.events.unregister("pre_run_cell", self.before)
        shell.ast_transformers.remove(self._wrapper)
        shell.input_transformers_cleanup.remove(self.replace_first_line)
        for name in (BEGIN, END):
            vars(builtins).pop(name, None)

    # -- what IPython calls

    def replace_first_line(self, lines: list[str]) -> list[str]:
        """Make a call of the marker line. Pure: IPython also calls it to see if code is complete."""
        if not lines or lines[0].split(maxsplit=1)[:1] != [MARKER]:
            return lines
        options = lines[0].strip().removeprefix(MARKER).strip()
        body = "".join(lines[1:])
        if body.lstrip().startswith("%%"):  # another cell magic below
            body = self.shell.input_transformer_manager.transform_cell(body)
        return [f"{BEGIN}({options!r})\n", *body.splitlines(keepends=True)]

    # else IPython, asked whether `%%torchy` is a complete cell, would not see a cell magic
    replace_first_line.has_side_effects = True  # type: ignore[attr-defined]

    def before(self, info: Any) -> None:
        """Start a session if `%torchy on` said so."""
        if self.running is None:
            self._info = info
            if self.always is not None:
                self._start(self.always, marked=False)

    def begin(self, line: str) -> None:
        """Start the session of a ``%%torchy`` cell: the marker line calls it."""
        __tracebackhide__ = True
        options = self.parse(line)
        _show_marker_in_tracebacks(sys._getframe(1).f_code.co_filename, line)
        if self.running is not None:  # `%torchy on` has started one with its own options
            self._finish("a session with other options begins", show=False)
        self._start(options, marked=True)
        if sys._getframe(1).f_code.co_filename in MEASURED:  # `%%time` or the like above it
            self._measure()

    def before_part(self) -> bool:
        """Tell, when IPython compiles something, if it runs under a session.

        If it is a part of the cell, it may be about to be measured: what is pending by now is not its
        work, and what it makes and drops is.
        """
        if self.running is None:
            return False
        if self.running.compiled:
            self._measure()
        self.running.compiled = True
        return True

    def end(self, value: Any = None) -> Any:
        """Flush at the cell's end, and give back the value of its last expression."""
        __tracebackhide__ = True
        if self.running is not None:
            torchy.flush(reason=AT_END)
            self.running.kept = self._kept_by_out(value)
        return value

    def after(self, result: Any) -> None:
        """End the session, however the cell ended, and show the explorer."""
        info = getattr(result, "info", None) or self._info  # a cancelled cell has no result
        number = getattr(result, "execution_count", None) or self.shell.execution_count - 1
        if info is not None:
            self._remember_cell(info.raw_cell, number)
        if self.running is None or info is not self.running.info:
            return  # no session, or a cell that was run by the running one
        error = getattr(result, "error_before_exec", None) or getattr(result, "error_in_exec", None)
        if error is None:
            self._finish(AT_END)
        else:
            self._finish(f"the cell raised {type(error).__name__}", error)

    def format(self, value: object, *arguments: Any, **options: Any) -> Any:
        """Flush once before a value is displayed, so that one flush serves all of its formatters."""
        if self.running is not None:
            torchy.flush(reason="display")
        return self._format(value, *arguments, **options)

    def profile(self, code: str, *arguments: Any) -> Any:
        """Let `%prun` measure a flush at the end of what it runs, which is no tree that can be changed."""
        if self.running is not None:
            self._measure()
            code = f"{code.rstrip()}\n{END}()"
        return self._run_with_profiler(code, *arguments)

    # -- the session

    def _start(self, options: Options, marked: bool) -> None:
        if torchy.switched_off():
            return
        try:
            session = self._enable(options)
        except torchy.WalkerUnavailable as unavailable:
            self._tell_why_eager(unavailable)
            return
        self.running = Running(session, options, self._info, perf_counter(), marked, marked)
        if not options.quiet and getattr(self.shell, "kernel", None) is not None:
            self.running.progress = Progress(lambda: session.counters)

    def _measure(self) -> None:
        if self.running is None:
            return
        torchy.flush(reason="before a measurement")
        if not self.running.measures:
            self.running.measures = True  # first: an interrupt may come in
            torchy.enable(skip_dead=False)  # until the cell's end

    def _enable(self, options: Options) -> torchy.Session:
        settings = options.settings
        if self.receipt is not None:
            settings = settings | {"receipt": self.receipt}
        if torchy.walker_ready():
            return torchy.enable(**settings)
        release = torch.__version__.split("+")[0]
        notice = display(
            Notice(f"Torchy: building the walker for torch {release} (once, ~15 s)…"),
            display_id=True,
        )
        began = perf_counter()
        try:
            session = torchy.enable(**settings)
        except BaseException:
            notice.update(Notice(f"Torchy: the walker for torch {release} could not be built"))
            raise
        took = perf_counter() - began
        notice.update(Notice(f"Torchy: built the walker for torch {release} ({took:.0f} s, once)"))
        return session

    def _tell_why_eager(self, unavailable: Exception) -> None:
        short = "Torchy is off: the cell runs eagerly."
        display(Notice(short if self._told_why_eager else f"{short} {unavailable}"))
        self._told_why_eager = True
        self.always = None

    def _finish(self, reason: str, error: BaseException | None = None, show: bool = True) -> None:
        running, self.running = self.running, None
        if running is None:
            return
        try:
            torchy.flush(reason=reason)
        finally:
            for _ in range(1 + running.measures):
                if torchy.current_session() is running.session:
                    torchy.disable()
            if running.progress is not None:
                running.progress.stop()
        cells = self._below_magics() | self.sources
        hint = (
            f"Out keeps {running.kept / LARGE:.0f} MiB of this cell's result alive; "
            "a ; at the end of the line avoids it"
        )
        seconds = perf_counter() - running.began
        report = running.session.report
        raised = None if error is None else Raised.at(error, self.sources)
        if raised is not None and report.traces and report.traces[-1].reason == reason:
            raised_at = dataclasses.replace(report.traces[-1], where=raised.where)
            report = dataclasses.replace(report, traces=(*report.traces[:-1], raised_at))
        explorer = Explorer(
            report.with_file_names({file: cell.name for file, cell in cells.items()}),
            cells,
            seconds=seconds,
            hints=(hint,) if running.kept >= LARGE else (),
            costs=self._costs,
            raised=raised,
            session=running.session,
            names=self.shell.user_ns,
        )
        if report.traces or running.marked:
            self.last = explorer
            if show and not running.options.quiet:
                self.show(explorer)

    def show(self, explorer: Explorer) -> None:
        """Display an explorer; of those shown before, only the last ones live on."""
        explorer.show(unfolded=not self._shown or explorer in self._shown)
        if explorer not in self._shown:
            self._shown.append(explorer)
        while len(self._shown) > MOST_SHOWN:
            self._shown.popleft().close()

    # -- the cells' texts

    def name_of(self, file: str) -> str:
        """Return what to call a file of the program: ``cell 7``, also of the cell that runs."""
        if file in self.sources:
            return self.sources[file].name
        info = self.running.info if self.running is not None else None
        if info is not None:
            text = self.shell.transform_cell(info.raw_cell)
            count = self.shell.execution_count
            for number in (count - 1, count):  # IPython's versions differ in when it counts
                if file == self.shell.compile.get_code_name(info.raw_cell, text, number):
                    return f"cell {number}"
        return os.path.basename(file)

    def _remember_cells_run_before(self) -> None:
        history = self.shell.history_manager
        for number, raw in enumerate(history.input_hist_raw if history else ()):
            self._remember_cell(raw, number)

    def _remember_cell(self, raw: str, number: int) -> None:
        if not raw or raw.isspace():
            return
        # linecache holds the transformed text; the name that IPython gives the code leads to ours
        file = self.shell.compile.get_code_name(raw, self.shell.transform_cell(raw), number)
        self.sources.pop(file, None)
        # IPython drops empty lines at the top
        text = re.sub(r"\A(?:[^\S\n]*\n)+", "", raw).rstrip("\n")
        self.sources[file] = CellSource(f"cell {number}", text)
        if len(self.sources) > MOST_TEXTS:
            del self.sources[next(iter(self.sources))]

    def _below_magics(self) -> dict[str, CellSource]:
        """Return what magics that measure compile of the running cell, by their names for it."""
        if not self.sources:
            return {}
        cell = list(self.sources.values())[-1]
        return {file: source for file, name in MEASURED.items() if (source := _part(cell, name))}

    def _kept_by_out(self, value: object) -> int:
        # a subclass may see what it is asked, or have no size
        if type(value) is not torch.Tensor or value.layout is not torch.strided:
            return 0
        return 0 if self.shell.displayhook.quiet() else value.numel() * value.element_size()


class WrapLastExpression(ast.NodeTransformer):
    """Makes ``END(E)`` of the last expression E, or appends ``END()``.

    Only in a cell that begins with the marker's call, and, while a session runs, in all that IPython
    compiles: what ``%%time`` and ``%timeit`` measure then includes the flush.

    Parameters
    ----------
    before_part
        Called before something is compiled that is no marked cell; tells if a session runs.
    shows_assigned
        Tells if a last assignment's value is shown too, a setting of IPython.
    """

    def __init__(self, before_part: Callable[[], bool], shows_assigned: Callable[[], bool]) -> None:
        self._before_part = before_part
        self._shows_assigned = shows_assigned

    def visit_Module(self, module: ast.Module) -> ast.Module:
        """Wrap the last expression."""
        if not module.body:
            return module
        marked = _is_marker(module.body[0])
        if not (marked or self._before_part()):
            return module
        last = module.body[-1]
        end = ast.copy_location(ast.Name(END, ast.Load()), last)
        if isinstance(last, ast.Expr) and not (marked and len(module.body) == 1):
            last.value = ast.copy_location(ast.Call(end, [last.value], []), last.value)
        else:
            assigned = _assigned_name(last) if self._shows_assigned() else None
            value: list[ast.expr] = [] if assigned is None else [ast.Name(assigned, ast.Load())]
            call = ast.copy_location(ast.Call(end, value, []), last)
            module.body.append(ast.copy_location(ast.Expr(call), last))
        return ast.fix_missing_locations(module)


def _part(cell: CellSource, magic: str) -> CellSource | None:
    """Return what a magic makes of a cell: all below it, or the lines with it; None if it has none."""
    lines = cell.text.split("\n")
    begin = next((i for i, line in enumerate(lines) if not line.startswith("%%")), len(lines))
    if any(line.split()[0] == f"%%{magic}" for line in lines[:begin]):
        return CellSource(f"{cell.name} below %%{magic}", "\n".join(lines[begin:]))
    found = dict.fromkeys(line.strip() for line in lines if re.search(rf"(?<!%)%{magic}\b", line))
    return CellSource(f"{cell.name} in %{magic}", " or ".join(found)) if found else None


def _assigned_name(statement: ast.stmt) -> str | None:
    match statement:
        case ast.Assign(targets=[ast.Name(name)]) | ast.AugAssign(target=ast.Name(name)):
            return name
        case ast.AnnAssign(target=ast.Name(name), value=ast.expr()):
            return name
        case _:
            return None


def _is_marker(statement: ast.stmt) -> bool:
    match statement:
        case ast.Expr(ast.Call(ast.Name(name))):
            return name == BEGIN
        case _:
            return False


def _show_marker_in_tracebacks(file: str, line: str) -> None:
    """Let tracebacks show the marker line nearly as typed; what IPython parses must be Python."""
    entry = linecache.cache.get(file)
    if entry is not None and len(entry) == 4 and entry[2] and entry[2][0].startswith(BEGIN):
        entry[2][0] = f"# {MARKER} {line}".rstrip() + "\n"


class Notice:
    """A line of Torchy's own in the cell's output."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        """Return the line."""
        return self.text

    def _repr_html_(self) -> str:
        from html import escape

        return f'<span style="color: #888; font-size: 90%">{escape(self.text)}</span>'
