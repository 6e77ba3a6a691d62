"""What a backend is: all that Torchy asks of one. That for the CPU is `torchy.codegen.cpu`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch

from torchy.ir.kernel import KernelForm, Order
from torchy.ir.ops import Numerics, OpSpec, Rule
from torchy.ir.words import ViewWords


class Kernel(Protocol):
    """Compiled code for one kernel form."""

    @property
    def id(self) -> str:
        """What :meth:`Backend.identity` gives for its form."""

    @property
    def address(self) -> int:
        """Where its code begins, for the walker."""

    @property
    def compile_seconds(self) -> float:
        """What compiling took."""

    @property
    def levels(self) -> Mapping[str, Callable[[], str]]:
        """By name, from the most readable one down, what gives its text: ``loop nest``, ``assembly``."""

    @property
    def may_refuse(self) -> bool:
        """Whether there are layouts that it cannot be launched for: its ops are called then."""

    def launch_words(
        self,
        space: ViewWords,
        accesses: Sequence[ViewWords],
        numbers: Sequence[int],
        reduced: Sequence[int] = (),
    ) -> list[int]:
        """Return what the walker needs to launch it, as words of a step: see :mod:`torchy.run.program`.

        Parameters
        ----------
        space
            A view of the sizes that it walks.
        accesses
            A view for each of the form's accesses.
        numbers
            For each of the form's numbers, which of the trace's it is.
        reduced
            The dimensions of the space that the form's reduced axis stands for.
        """


class Backend(Protocol):
    """Makes kernels for one kind of device. Any thread may ask."""

    def why_inexact(
        self,
        spec: OpSpec,
        rule: Rule | None,
        compute: torch.dtype,
        literals: Mapping[str, object],
        still: frozenset[str],
        by_position: bool,
    ) -> str:
        """Return what is known against a formula's having eager's bits, empty if nothing; it must cost nothing.

        Parameters
        ----------
        rule
            The formula; None: why does the op have none?
        compute, literals
            The dtype computed in, and the values of parameters that are part of the code.
        still
            The parameters whose elements do not differ along the inner dimension.
        by_position
            The kernel would mind where an element stands: :meth:`by_position`.
        """

    def by_position(self, spec: OpSpec, compute: torch.dtype) -> bool:
        """Return whether an op's result depends on where an element stands: see :class:`torchy.ir.kernel.Statement`."""

    def order(self, operator: str, dtype: torch.dtype) -> Order | None:
        """Return the order in which eager reduces the rows of a dtype, None if none is known; it must cost nothing.

        Parameters
        ----------
        operator
            See :class:`torchy.ir.kernel.Reduction`.
        """

    def identity(self, form: KernelForm, numerics: Numerics) -> str:
        """Return the id of the kernel that a form gets: equal in all processes on equal machines."""

    def levels(self, form: KernelForm) -> Mapping[str, Callable[[], str]]:
        """Return the levels of a form that are there without compiling it: see :attr:`Kernel.levels`."""

    def compile(self, form: KernelForm, numerics: Numerics) -> Kernel:
        """Compile a form.

        In exact mode, an op that no kernel has had before is compared with eager first.

        Raises
        ------
        CompileError
            If it cannot be compiled, or has an op that is seen not to have eager's bits.
        """
