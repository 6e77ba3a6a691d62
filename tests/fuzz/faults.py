"""Faults to plant in a copy of Torchy, one at a time: random programs must find each of them."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "torchy"


@dataclasses.dataclass(frozen=True)
class Fault:
    """A piece of source text that is there just once, and what it is replaced by."""

    name: str
    file: str
    old: str
    new: str

    def plant(self, folder: Path) -> None:
        """Copy the package into a folder, with this fault.

        Raises
        ------
        ValueError
            If the source has changed, so that the fault must be written anew.
        """
        copy = folder / "torchy"
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        path = copy / self.file
        text = path.read_text()
        if text.count(self.old) != 1:
            raise ValueError(
                f"{self.name}: {self.file} has {text.count(self.old)} times {self.old!r}"
            )
        path.write_text(text.replace(self.old, self.new))


FAULTS = (
    Fault(
        "a write-after-read hazard is dropped", "plan/hazards.py",
        "result.update(self._readers.get(buffer, ()))", "pass",
    ),
    Fault(
        "a read-after-write hazard is dropped", "plan/hazards.py",
        "touch.reads:  # read after write", "():",
    ),
    Fault(
        "views that overlap are fused", "plan/fuse.py",
        "if group.written.get(buffer, view) != view:", "if False:",
    ),
    Fault(
        "a write counts as overwritten though it is read before", "plan/liveness.py",
        "overwritten.pop(buffer, None)", "pass",
    ),
    Fault(
        "memory is released after its first use", "plan/memory.py",
        "release[last].append(buffer)", "release[first].append(buffer)",
    ),
    Fault(
        "a reader is left out", "record/readers.py",
        '    "tolist": False,\n', "",
    ),
    Fault(
        "results of an op lie otherwise in memory", "record/policy.py",
        '    "masked_fill": LayoutRule.CONTIGUOUS,\n', "",
    ),
    Fault(
        "a kernel takes its first number for all", "record/walker/pack.cpp",
        "*number++ = trace.numbers[index];", "*number++ = trace.numbers[numbers.front() + 0 * index];",
    ),
    Fault(
        "a store does not wait for the loads of what it overwrites", "codegen/loops.py",
        "when.append(max(ready, loaded.get(access, 0)))", "when.append(ready)",
    ),
    Fault(
        "a kernel ignores storage offsets", "record/walker/pack.cpp",
        "trace.addresses[views[i].slot] + trace.words[views[i].at] * views[i].itemsize;",
        "trace.addresses[views[i].slot];",
    ),
    Fault(
        "a kernel is launched with the layouts of last time", "record/walker/pack.cpp",
        "same = std::equal(layout, layout + 2 * views[i].rank, at);", "(void)layout;",
    ),
    Fault(
        "a flush is repeated though other buffers are live", "record/walker/execute.cpp",
        "known->flags != trace.flags ||", "",
    ),
    Fault(
        "a number is stale", "record/walker/recorder.cpp",
        "    scratch_.key.push_back(static_cast<uint64_t>(bits));\n", "",
    ),
    Fault(
        "the kind of a number is missing from the key", "record/walker/recorder.cpp",
        "<< 8 |\n                         static_cast<uint8_t>(kind));", "<< 8);",
    ),
    Fault(
        "a dtype is missing from the key", "record/walker/recorder.cpp",
        "static_cast<uint64_t>(c10::typeMetaToScalarType(impl.dtype())) << 8 |", "",
    ),
    Fault(
        "which operand is meant is missing from the key", "record/walker/recorder.cpp",
        "static_cast<uint64_t>(operand.slot) << 32 |\n                         static_cast<uint64_t>(operand.view)",
        "0",
    ),
    Fault(
        "layouts of other sizes are taken", "record/walker/recorder.cpp",
        "return found == memos.end() ? nullptr : &found->second;",
        "return memos.empty() ? nullptr : &memos.begin()->second;",
    ),
    Fault(
        "memory that NumPy shares is written later", "record/walker/recorder.cpp",
        "if (!escaped.empty() && escaped.find(storage) != escaped.end()) return false;", "",
    ),
    Fault(
        "a write is deferred though other tensors are on the storage", "record/walker/recorder.cpp",
        "if (!pending && impl->unsafe_storage().use_count() != 1) return false;", "",
    ),
    Fault(
        "a write to an expanded tensor is deferred", "record/walker/recorder.cpp",
        "if (at::has_internal_overlap(impl) != at::MemOverlap::No) return false;", "",
    ),
    Fault(
        "a write over part of an operand is deferred", "record/walker/recorder.cpp",
        "if (&one != &other && one.slot == other.slot && !same) return true;", "{}",
    ),
    Fault(
        "an alias is lost", "record/walker/see.cpp",
        "      give_bit(impl);\n      trace->bearers", "      take_bit(impl);\n      trace->bearers",
    ),
    Fault(
        "a write on another thread does not wait for pending reads", "record/walker/settle.cpp",
        'settle_storage(storage, /*written=*/true, Reason::kMemory, "");',
        'settle_storage(storage, /*written=*/false, Reason::kMemory, "");',
    ),
    Fault(
        "an input that was written counts as dead", "record/walker/finish.cpp",
        "(slot.live ? kLive : 0)", "(slot.live && !slot.written ? kLive : 0)",
    ),
    Fault(
        "sizes are not compared with those expected", "record/walker/expect.h",
        "} else if (!same(sizes, layout) || !same(strides, layout + sizes.size())) {", "} else if (false) {",
    ),
    Fault(
        "another storage than expected is taken", "record/walker/expect.h",
        "if (slot.storage != storage || !slot.as_recorded()) return false;", "",
    ),
    Fault(
        "a number that is part of the place is not compared", "record/walker/expect.h",
        "if (!runtime) return word(static_cast<uint64_t>(bits));", "if (!runtime) return ++at_, true;",
    ),
    Fault(
        "the offset of an operand is the last one's", "record/walker/expect.cpp",
        "if (operand.any_offset)\n", "if (false)\n",
    ),
    Fault(
        "what an interpreted flush needs later is released", "record/walker/interpret.cpp",
        "if (last_[slot] < 0) last_[slot] = static_cast<int64_t>(op);", "last_[slot] = static_cast<int64_t>(op);",
    ),
    Fault(
        "an interpreted flush leaves out what a live buffer needs", "record/walker/interpret.cpp",
        "wanted_[slot] = true;", "{}",
    ),
    Fault(
        "a result that is viewed counts as dropped", "record/walker/trace.cpp",
        "if (only.use_count() == 1 && only.weak_use_count() == 1) {", "{",
    ),
    Fault(
        "a number comes as a float32 to an op in float64", "record/walker/caller.cpp",
        "step_.operands.size() == 1 && step_.operands[0].dtype == c10::kFloat;", "step_.operands.size() == 1;",
    ),
    Fault(
        "an op on a single element that is pending runs at once", "record/walker/typed.cpp",
        "impl.dim() == 0 && !carries_bit(impl) && !watched_storage(tensor);", "impl.dim() == 0;",
    ),
)  # fmt: skip
