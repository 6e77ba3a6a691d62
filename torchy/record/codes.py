"""The numbers that the walker and Python share, compared with the walker's own (codes.h) when it is loaded."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence

from torchy.ir.trace import Mode


class Ask(enum.IntEnum):
    """What the walker asks of Python."""

    FLUSH = 0
    PLACE = 1
    CLASSIFY = 2
    PACE = 3
    PAUSE = 4
    PLACES = 5


class Reason(enum.IntEnum):
    """Why a flush happens."""

    OPERAND = 0  # of an op that runs now
    MEMORY = 1
    LENGTH = 2
    BYTES = 3
    STATE = 4
    WRITE = 5  # of what a pending op reads
    OTHER_THREAD = 6
    CALLED = 7  # by Python, for a reason of its own


class Repeated(enum.IntEnum):
    """What became of a flush that the walker was to run by itself."""

    NO = 0  # Python is to do it
    YES = 1
    MIND_PACE = 2  # done, and the session has cost more than it has brought
    MIND_PLACES = 3  # done, and there are many places
    MIND_NAP = 4  # done, and a trial is to begin once what is pending has been computed


class Claim(enum.IntEnum):
    """Who runs a flush."""

    NOTHING = 0  # there is nothing to do
    OURS = 1  # the caller
    WITHIN = 2  # the caller's thread is in the midst of it
    OTHERS = 3  # another thread is, and the caller must not wait


class OpClass(enum.IntEnum):
    """How the walker treats an op."""

    UNKNOWN = 0
    RUN_NOW = 1
    METADATA = 2
    DESCEND = 3
    DEFER = 4
    DRAW = 5
    MASK = 6


class LayoutRule(enum.IntEnum):
    """How the layouts of an op's results follow from its operands'."""

    LEARN = 0  # of its own meta kernel, if the walker knows that; else by running it
    ITERATE = 1
    META = 2
    CONTIGUOUS = 3
    PRESERVE = 4


class SessionMode(enum.IntEnum):
    """What becomes of the ops of a session."""

    RECORD = 0
    PASS_THROUGH = 1
    CARRY = 2


class SlotFlag(enum.IntFlag):
    """What is known of a buffer where a trace ends."""

    CREATED = 1
    WRITTEN = 2
    LIVE = 4
    HEAVY = (
        8  # on the first of them: all that the flush needs at once is more than the bound allows
    )


class ScriptId(enum.IntEnum):
    """Which script runs a flush, where it is none that Python has given."""

    NO_SCRIPT = -1
    INTERPRETED = -2  # a program of the walker's own


class SessionPlace(enum.IntEnum):
    """Where a session begins, if not at the place of a number."""

    NOWHERE = -1  # somewhere else than in the program
    RESTS = -2  # less the number: where it may as well sleep


class Refusal(enum.IntEnum):
    """Why a kernel is not launched for the layouts that have come; less than 0 among the times of a flush."""

    FITS = 0
    LAYOUT = 1
    ONE_ROW = 2
    LONG = 3


class WhyNow(enum.IntEnum):
    """Why an op runs at once."""

    POLICY = 0  # it is none that is recorded
    SIGNATURE = 1  # not with these arguments
    OPERAND = 2  # one of them cannot be recorded
    SHARED = 3  # something outside torch sees an operand's memory
    SINGLE = 4  # single elements, which are there
    SIZES = 5  # that shows how its results lie
    VALUES = 6  # eager checks them
    STATE = 7  # of the process
    BUSY = 8  # other threads keep flushing
    NEVER = 9  # its session is not to defer it


MODES = tuple(Mode)  # by the walker's numbers
SAME_SIZES = 8  # a bit beside them
ENUMERATIONS = (
    Ask, Reason, Repeated, Claim, OpClass, LayoutRule, SessionMode, SlotFlag, Refusal, ScriptId, SessionPlace,
    WhyNow,
)  # fmt: skip


def differences(told: str, records: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Compare the walker's table with this one.

    Parameters
    ----------
    told
        A line for each enumeration, ``Ask Flush=0 Place=1``, and for each record, ``Counters recorded run_now``.
    records
        The fields of the records as Python has them.

    Yields
    ------
    str
        Each line in which the two differ.
    """
    ours = {
        enumeration.__name__: [
            f"{_plain(name)}={code.value}" for name, code in enumeration.__members__.items()
        ]
        for enumeration in ENUMERATIONS
    }
    ours["Mode"] = [f"{_plain(mode.name)}={number}" for number, mode in enumerate(MODES)]
    ours["Mode"].append(f"samesizes={SAME_SIZES}")
    ours |= {name: [_plain(field) for field in fields] for name, fields in records.items()}
    theirs = {}
    for line in told.splitlines():
        name, *entries = line.split()
        theirs[name] = [_plain(entry) for entry in entries]
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            yield f"{name} is {theirs.get(name)} there, {ours.get(name)} here"


def _plain(name: str) -> str:
    """Return a name as it is in both languages: ``OTHER_THREAD`` and ``OtherThread`` are one."""
    return name.replace("_", "").lower()
