"""What a trace becomes: a list of steps, each a fused group or a call, with the memory they use."""

from __future__ import annotations

from dataclasses import dataclass

from torchy.ir.kernel import KernelForm


@dataclass(frozen=True, slots=True)
class FusedGroup:
    """Ops that run as one kernel.

    Parameters
    ----------
    ops
        Indices of the trace's ops, in order.
    form
        The kernel's shape-free form.
    accesses
        For each of the form's accesses the view that it reaches.
    numbers
        For each of the form's numbers its index in the recording's numbers.
    space
        The view whose sizes, in the memory order of its strides, are the iteration space.
    reduced
        The dimensions of the space that make up a row, if the form has rows.
    statements
        For each of the form's statements the op that it is of.
    """

    ops: tuple[int, ...]
    form: KernelForm
    accesses: tuple[int, ...]
    numbers: tuple[int, ...]
    space: int
    reduced: tuple[int, ...] = ()
    statements: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """One op that torch itself runs."""

    op: int


Step = FusedGroup | Call


def ops_of(step: Step) -> tuple[int, ...]:
    """Return the indices of the ops that a step runs."""
    return step.ops if isinstance(step, FusedGroup) else (step.op,)


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of one trace for one set of live buffers.

    Parameters
    ----------
    steps
        In an order that keeps every hazard.
    dead
        Ops that need not run.
    allocate
        For each step the buffers that need memory of their own before it runs: live ones and those that only later steps
        read. Buffers that a call creates are not among them (torch allocates those), nor are those that never leave
        their kernel, nor inputs. If a group is run op by op instead, its ops make the latter: they end with the group.
    release
        For each step the buffers that are not needed any more once it has run: created ones that are not live, and
        inputs that nothing outside the trace reaches.
    why_apart
        For neighbouring steps that could not be joined: the reason, in words for the explorer, by index of the later step.
    """

    steps: tuple[Step, ...]
    dead: tuple[int, ...]
    allocate: tuple[tuple[int, ...], ...]
    release: tuple[tuple[int, ...], ...]
    why_apart: dict[int, str]
