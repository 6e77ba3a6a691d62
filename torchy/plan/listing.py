"""A plan as text that one can read."""

from __future__ import annotations

import textwrap

from torchy.ir.listing import Layouts, Numbers, form_text, op_text
from torchy.ir.trace import Trace
from torchy.plan.plan import FusedGroup, Plan


def plan_listing(
    plan: Plan, trace: Trace, layouts: Layouts | None = None, numbers: Numbers | None = None
) -> str:
    """Return a plan as text: each step with its ops, its kernel's form, its memory, and why it is one.

    Parameters
    ----------
    layouts, numbers
        Those of one recording: by view, and by number.
    """
    lines = []
    for index, step in enumerate(plan.steps):
        ops = step.ops if isinstance(step, FusedGroup) else (step.op,)
        kind = f"group over %{step.space}" if isinstance(step, FusedGroup) else "call"
        why = plan.why_apart.get(index)
        lines.append(f"step {index}: {kind}" + (f"   # {why}" if why else ""))
        lines += [f"    {op_text(trace, trace.ops[op], layouts, numbers)}" for op in ops]
        if isinstance(step, FusedGroup):
            lines.append("  kernel")
            lines.append(textwrap.indent(form_text(step.form, step.accesses), "    "))
        for word, buffers in (("allocate", plan.allocate), ("release", plan.release)):
            if buffers[index]:
                lines.append(f"  {word} buffers {', '.join(map(str, buffers[index]))}")
    lines += [f"dead: {op_text(trace, trace.ops[op], layouts, numbers)}" for op in plan.dead]
    return "\n".join(lines)
