"""Why the walker flushes, and why it does not launch a kernel, in the report's words."""

from __future__ import annotations

from torchy.record.codes import Reason, Refusal, WhyNow
from torchy.record.policy import why_now

WORDS = {
    Reason.OPERAND: "{} runs now",
    Reason.MEMORY: "{} reads the memory",
    Reason.LENGTH: "max_ops recorded",
    Reason.BYTES: "memory bound reached",
    Reason.STATE: "process state changed",
    Reason.WRITE: "{} writes what a pending op reads",
    Reason.OTHER_THREAD: "{} on another thread",
}
REFUSALS = {
    Refusal.LAYOUT: "this time rows do not lie together in memory",
    Refusal.ONE_ROW: "this time there is a single row of so many elements that eager reduces it in parts",
    Refusal.LONG: "this time rows are longer than the kernel can take",
}
WHY_NOW = {
    WhyNow.SIGNATURE: "it is not deferred with these arguments",
    WhyNow.OPERAND: "an operand is no plain tensor, or overlaps with what is written",
    WhyNow.SHARED: "something else (NumPy, say, or another session) has a hold on an operand's memory",
    WhyNow.SINGLE: "single elements that are there already: at once is faster",
    WhyNow.SIZES: "its first time with these sizes shows how its result lies",
    WhyNow.VALUES: "the values that it is given have to be checked first",
    WhyNow.STATE: "this thread takes denormal numbers for zero",
    WhyNow.BUSY: "a flush was under way",
    WhyNow.NEVER: "it is never to be deferred: you have said so",
}
OP_READERS = {"aten::_local_scalar_dense": "item()", "aten::equal": "torch.equal"}


def why_now_in_words(why: int, name: str) -> str:
    """Return what the report says of an op that ran at once, for one of the walker's reasons."""
    return why_now(name) if why == WhyNow.POLICY else WHY_NOW[WhyNow(why)]


def reason_in_words(reason: int, text: str) -> str:
    """Return what the report says of a flush for one of the walker's reasons."""
    if reason == Reason.CALLED:  # by Python, in its own words
        return text
    if text in OP_READERS:
        return OP_READERS[text]
    return WORDS[Reason(reason)].format(text or "memory access")
