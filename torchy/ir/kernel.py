"""What a fused group becomes when everything is left out that does not change its code: a kernel form.

No sizes, no addresses, no numbers: two groups with equal forms share one compiled kernel. A form is what the plan hands to
codegen, and, with the machine's features, the key under which a kernel is cached.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from torchy.ir.trace import Mode


@dataclass(frozen=True, slots=True)
class Access:
    """One memory operand: an address, and for modes UNIT, REPEAT and STRIDED a stride in each dimension."""

    dtype: torch.dtype
    mode: Mode


@dataclass(frozen=True, slots=True)
class Load:
    """The element of an access before the kernel has written anything to it."""

    access: int


@dataclass(frozen=True, slots=True)
class Result:
    """The value of an earlier statement."""

    statement: int


@dataclass(frozen=True, slots=True)
class RuntimeNumber:
    """The kernel's number argument at this position (of kind ``KernelForm.number_kinds[index]``)."""

    index: int


@dataclass(frozen=True, slots=True, eq=False)
class Literal:
    """A number, string or None that is part of the code. Equal if written alike: ``1``, ``1.0`` and ``True`` are three."""

    value: bool | int | float | str | None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Literal) and repr(self.value) == repr(other.value)

    def __hash__(self) -> int:
        return hash(repr(self.value))


Value = Load | Result | RuntimeNumber | Literal


@dataclass(frozen=True, slots=True)
class Statement:
    """One op on one element.

    Parameters
    ----------
    op
        The functional name in the op table (``add``, ``where``): in-place and ``out=`` forms are told apart by the
        stores.
    arguments
        In the order of the op table's parameters.
    compute
        The dtype in which eager's kernel computes: arguments are converted to it first.
    dtype
        The dtype of the result: rounded to it as eager does when it stores.
    """

    op: str
    arguments: tuple[Value, ...]
    compute: torch.dtype
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Store:
    """Write a value to an access."""

    access: int
    value: Value


@dataclass(frozen=True, slots=True)
class KernelForm:
    """The shape-free form of a fused group.

    All loads of an access happen, element by element, before its store. Accesses that overlap in memory are the same
    access: the plan sees to it.
    """

    accesses: tuple[Access, ...]
    number_kinds: tuple[type, ...]
    statements: tuple[Statement, ...]
    stores: tuple[Store, ...]

    @property
    def flat(self) -> bool:
        """True if one index walks all of it: every access is LINEAR or SCALAR."""
        return all(access.mode in (Mode.LINEAR, Mode.SCALAR) for access in self.accesses)
