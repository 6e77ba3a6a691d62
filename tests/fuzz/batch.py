"""Many random programs in one process: what they covered, and the first that differs from eager, cut down."""

from __future__ import annotations

import collections
import dataclasses
import functools
import gc
import traceback
from collections.abc import Callable

import hypothesis
from hypothesis import HealthCheck, Phase
from programs import TIERS, VISITS, Program, disagreement, is_steady, programs

MARK = "--- program ---"  # stands before each program in the log of a batch that dies


@dataclasses.dataclass
class Coverage:
    """Which ops, flush reasons and verdicts of the policy random programs have met."""

    programs: int = 0
    unsteady: int = 0  # eager itself gave other results each time
    deferred: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    fused: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    reasons: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    verdicts: dict[str, str] = dataclasses.field(default_factory=dict)  # by op, once a process
    refused: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    counters: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def merge(self, other: Coverage) -> None:
        """Add another's counts."""
        self.programs += other.programs
        self.unsteady += other.unsteady
        self.verdicts |= other.verdicts
        for name in ("deferred", "fused", "reasons", "refused", "counters"):
            getattr(self, name).update(getattr(other, name))

    def watch(self, session: object) -> None:
        """Count what a session that has ended did."""
        self.counters.update(session.counters)
        del self.counters["kernels_compiled"]  # of the process
        for trace in session.report.traces:
            self.reasons[trace.reason] += 1
            kinds = {group.id: group.kind for group in trace.groups}
            for op in trace.ops:
                self.deferred[op.name] += 1
                self.fused[op.name] += kinds.get(op.group) == "fused"

    def watch_policy(self) -> None:
        """Note what the policy decides from now on, in this process."""
        from torchy.record import policy

        classify, allow = policy.classify, policy.allow

        @functools.wraps(classify)
        def classified(name: str) -> object:
            verdict = classify(name)
            self.verdicts[name] = verdict.op_class.name
            return verdict

        @functools.wraps(allow)
        def allowed(place: object) -> int:
            verdict = allow(place)
            self.refused[place.name] += verdict == 0
            return verdict

        policy.classify, policy.allow = classified, allowed


@dataclasses.dataclass
class Failure:
    """A program that differs from eager."""

    program: Program
    tier: str
    found: list[str]
    whole: bool = False  # it has not been cut down

    def __str__(self) -> str:
        facts = "".join(f"\n# {line}" for line in self.found[:8])
        return f"# compile={self.tier!r}{facts}\n{self.program.script(self.tier)}"


class Differs(Exception):  # noqa: N818
    """Under Torchy a program did something else."""


class Broken(BaseException):  # noqa: N818 - hypothesis shall not go on
    """A session cannot compute what it owes: in this process nothing works any more."""


def run_batch(
    seed: int, count: int, shrink: bool, visits: int = len(VISITS)
) -> tuple[Coverage, Failure | None]:
    """Run programs until one differs from eager."""
    coverage, failures = Coverage(), []
    gc.freeze()  # programs collect garbage: theirs
    coverage.watch_policy()

    @drawing(seed, count, shrink)
    def check(program: Program) -> None:
        coverage.programs += 1
        print(MARK, program.to_json(), sep="\n", flush=True)
        for tier in TIERS:
            found = []
            try:
                found = disagreement(program, tier, visits, coverage.watch)
                steady = not found or is_steady(program)
            except Exception as error:
                text = "".join(traceback.format_exception_only(error))
                found += text.splitlines()
                failures.append(Failure(program, tier, found, whole=True))
                raise Broken from error
            if not found:
                continue
            if not steady:
                coverage.unsteady += 1
                return
            failures.append(Failure(program, tier, found))
            raise Differs

    try:
        check()
    except (Differs, Broken, hypothesis.errors.FlakyFailure, hypothesis.errors.Flaky):
        if not failures:
            raise
        return coverage, failures[-1]  # hypothesis runs the shortest last
    return coverage, None


def drawing(seed: int, count: int, shrink: bool) -> Callable:
    """Return a decorator: the function is called with so many programs, one after another."""
    given = hypothesis.given(programs())
    settings = hypothesis.settings(
        max_examples=count, database=None, deadline=None, report_multiple_bugs=False, print_blob=False,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    return lambda function: hypothesis.seed(seed)(settings(given(function)))


def judge(program: Program) -> list[str]:
    """Return how one program differs."""
    found = [line for tier in TIERS for line in disagreement(program, tier)]
    return found if is_steady(program) else []
