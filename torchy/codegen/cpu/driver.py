"""What all kernels share, compiled once: threads, the walk over outer dimensions, the tail of a row.

A kernel's arguments are 64-bit words::

    elements, inner, outer, address[A], step[A], number[N], size[outer], stride[outer][A]

for A accesses and N numbers; ``inner`` is the innermost size, ``outer`` how many dimensions lie around it, outermost
first; steps (in the inner dimension) and strides are in bytes. A *row* is a run in the inner dimension. Its
last elements, fewer than a vector, are copied to a buffer, so that they go through the same code as all others.

A kernel's own code is ``vectors(at, step, numbers, n)``, for ``n`` a multiple of its lanes, and a *job* for the driver::

    vectors, A, N, lanes, bytes of all buffers, again, gathered, traits[A]

where ``again`` is 1 if elements may be computed twice (no access is both loaded and stored): the last vector of a row then
overlaps the one before, where the row is long enough. An access's traits are its element's bytes, plus MOVES (along a
row), VARIES (over the space), DENSE (one index serves the space and it), LOADED and STORED.

Where an axis is reduced, a row is all of it, and a kernel's code takes blocks of whole rows, and scratch memory for them
(see :mod:`torchy.codegen.cpu.rows`): its job is ``vectors, A, N, scratch bytes for each element,
arrays of 8 bytes a row, rows in a block at least, beside, most, traits[A]``. ``beside`` does rows of fewer than ``most``
elements side by side (see :mod:`torchy.codegen.cpu.panels`); 0: there is no such code. The last three are not there for
columns, nor the rows in a block.

Where all elements are reduced, they are done in eager's parts, a part for each thread, and blocks of a part; the job is
``vectors, A, N, scratch bytes for each element, arrays of 8 bytes, reductions, join, arrays of a part`` (see
:mod:`torchy.codegen.cpu.teams`).

Where it matters where an element stands, elements are cut into chunks as eager cuts them: one a thread. ``vectors`` does as
many of a chunk as eager's vector body does, whose multiple is in the place of the lanes; ``singly``, which is in the place
of ``gathered``, the rest, in a buffer.

Where rows are short, what is not DENSE is gathered into buffers, many rows at a time, and ``gathered``, the same code
for accesses that are all LINEAR, runs on those; 0 if all are DENSE anyway.
"""

from __future__ import annotations

import re
from typing import Final

from torchy.codegen.cpu.blocks import RUN_COLUMNS, RUN_ROWS
from torchy.codegen.cpu.chunks import RUN_CHUNKS, SERIAL_CHUNKS
from torchy.codegen.cpu.copies import COPIES
from torchy.codegen.cpu.gather import GATHER
from torchy.codegen.cpu.panels import PANELS
from torchy.codegen.cpu.part_folds import STATE
from torchy.codegen.cpu.routine import MANY
from torchy.codegen.cpu.teams import IN_PARALLEL, ONE_BY_ONE, RUN_TEAM, RUN_WHOLE
from torchy.codegen.cpu.threads import GRAIN
from torchy.ir.kernel import WHOLE, KernelForm

HEADER: Final = 3  # words before the addresses
MOST_OUTER: Final = 64
MOVES, LOADED, STORED, VARIES, DENSE = 256, 512, 1024, 2048, 4096
SHORT: Final = 32  # rows of fewer elements are gathered
GATHERED: Final = 512  # elements at a time
BLOCK: Final = 2048  # elements of the rows that are done together
ROOM: Final = (
    64  # elements that a value in scratch has beyond its own, and a multiple of which it is long
)
PANEL_BYTES: Final = (
    1 << 16
)  # of copies that are read again and again: about half a second-level cache
LEAST_BESIDE: Final = 8  # rows that follow each other, to be done side by side
FEW_APART: Final = 8  # a row must have fewer elements to be done so if some access's rows lie apart
COLUMNS: Final = "torchy_drive_columns"  # for kernels of columns
CHUNKS: Final = "torchy_drive_chunks"  # for kernels by position
COLUMNS_BLOCK: Final = 32  # columns that are done together: a multiple of every ColumnOrder's block
ELEMENTS: Final = "torchy_drive"  # for kernels without a reduced axis
ROWS: Final = "torchy_drive_rows"  # for kernels of rows
TEAMS: Final = "torchy_drive_teams"  # for kernels that reduce all elements

KINDS: Final = {ELEMENTS: "run", ROWS: "run_rows", COLUMNS: "run_columns", CHUNKS: "run_chunks"}
ENTRIES: Final = (*KINDS, TEAMS)

_THREADS: Final = """
declare void @GOMP_parallel(ptr, ptr, i32, i32)
declare i32 @omp_get_thread_num()
declare i32 @omp_get_num_threads()
"""

# DRIVE, RUN and WORKER: once for each kind of kernel
_PARALLEL: Final = """
define internal void @WORKER(ptr %task) {
  %job = load ptr, ptr %task
  %args.p = getelementptr ptr, ptr %task, i64 1
  %args = load ptr, ptr %args.p
  %me = call i32 @omp_get_thread_num()
  %all = call i32 @omp_get_num_threads()
  %me64 = zext i32 %me to i64
  %all64 = zext i32 %all to i64
  call void @RUN(ptr %job, ptr %args, i64 %me64, i64 %all64)
  ret void
}

define void @DRIVE(ptr %job, ptr %args, i32 %threads) {
  %total = load i64, ptr %args
  %more = add i64 %total, GRAIN_LESS_ONE
  %grains = udiv i64 %more, GRAIN
  %threads64 = zext i32 %threads to i64
  %few = icmp ult i64 %grains, %threads64
  %team = select i1 %few, i64 %grains, i64 %threads64
  %alone = icmp ult i64 %team, 2
  br i1 %alone, label %one, label %many
one:
  call void @RUN(ptr %job, ptr %args, i64 0, i64 1)
  ret void
many:
  %task = alloca [2 x ptr]
  store ptr %job, ptr %task
  %task.args = getelementptr ptr, ptr %task, i64 1
  store ptr %args, ptr %task.args
  %team32 = trunc i64 %team to i32
  call void @GOMP_parallel(ptr @WORKER, ptr %task, i32 %team32, i32 0)
  ret void
}
"""

_SERIAL: Final = """
define void @DRIVE(ptr %job, ptr %args, i32 %threads) {
  call void @RUN(ptr %job, ptr %args, i64 0, i64 1)
  ret void
}
"""

_RUN: Final = """
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

; to[a] = from[a] + by * with[a], for all accesses
define internal void @shift(ptr %to, ptr %from, i64 %by, ptr %with, i64 %count) alwaysinline {
entry:
  br label %loop
loop:
  %a = phi i64 [0, %entry], [%a.next, %loop]
  %with.p = getelementptr i64, ptr %with, i64 %a
  %w = load i64, ptr %with.p
  %from.p = getelementptr i64, ptr %from, i64 %a
  %f = load i64, ptr %from.p
  %w.by = mul i64 %w, %by
  %t = add i64 %f, %w.by
  %to.p = getelementptr i64, ptr %to, i64 %a
  store i64 %t, ptr %to.p
  %a.next = add i64 %a, 1
  %a.more = icmp ult i64 %a.next, %count
  br i1 %a.more, label %loop, label %exit
exit:
  ret void
}

; Move to the row of a number, from the first.
define internal void @seek(ptr %base, ptr %counters, ptr %sizes, ptr %strides, i64 %outer, i64 %count, i64 %row) {
entry:
  br label %loop
loop:
  %d = phi i64 [%outer, %entry], [%next, %step]
  %left = phi i64 [%row, %entry], [%rest, %step]
  %done = icmp eq i64 %d, 0
  br i1 %done, label %exit, label %step
step:
  %next = sub i64 %d, 1
  %size.p = getelementptr i64, ptr %sizes, i64 %next
  %size = load i64, ptr %size.p
  %at = urem i64 %left, %size
  %rest = udiv i64 %left, %size
  %counter = getelementptr i64, ptr %counters, i64 %next
  store i64 %at, ptr %counter
  %word = mul i64 %next, %count
  %stride = getelementptr i64, ptr %strides, i64 %word
  call void @shift(ptr %base, ptr %base, i64 %at, ptr %stride, i64 %count)
  br label %loop
exit:
  ret void
}

; Move to the row that follows; there is one.
define internal void @next_row(ptr %base, ptr %counters, ptr %sizes, ptr %strides, i64 %outer, i64 %count) alwaysinline {
entry:
  br label %loop
loop:
  %d.0 = phi i64 [%outer, %entry], [%d, %carry]
  %d = sub i64 %d.0, 1
  %counter = getelementptr i64, ptr %counters, i64 %d
  %size.p = getelementptr i64, ptr %sizes, i64 %d
  %size = load i64, ptr %size.p
  %word = mul i64 %d, %count
  %stride = getelementptr i64, ptr %strides, i64 %word
  %at = load i64, ptr %counter
  %at.next = add i64 %at, 1
  %inside = icmp ult i64 %at.next, %size
  br i1 %inside, label %turn, label %carry
carry:
  store i64 0, ptr %counter
  %back = sub i64 0, %at
  call void @shift(ptr %base, ptr %base, i64 %back, ptr %stride, i64 %count)
  br label %loop
turn:
  store i64 %at.next, ptr %counter
  call void @shift(ptr %base, ptr %base, i64 1, ptr %stride, i64 %count)
  ret void
}

define internal void @run(ptr %job, ptr %args, i64 %me, i64 %all) {
entry:
  %count.p = getelementptr i64, ptr %job, i64 1
  %count = load i64, ptr %count.p
  %n.count.p = getelementptr i64, ptr %job, i64 2
  %n.count = load i64, ptr %n.count.p
  %bytes.p = getelementptr i64, ptr %job, i64 4
  %bytes = load i64, ptr %bytes.p
  %counters = alloca [MOST_OUTER x i64]
  %base = alloca i64, i64 %count
  %at = alloca i64, i64 %count
  %spare.0 = mul i64 %count, 2
  %spare = alloca i64, i64 %spare.0
  %tail = alloca i8, i64 %bytes, align 64
  call void @llvm.memset.p0.i64(ptr %tail, i8 0, i64 %bytes, i1 false)
  %total = load i64, ptr %args
  %inner.p = getelementptr i64, ptr %args, i64 1
  %inner = load i64, ptr %inner.p
  %outer.p = getelementptr i64, ptr %args, i64 2
  %outer = load i64, ptr %outer.p
  %address = getelementptr i64, ptr %args, i64 HEADER
  %step = getelementptr i64, ptr %address, i64 %count
  %numbers = getelementptr i64, ptr %step, i64 %count
  %sizes = getelementptr i64, ptr %numbers, i64 %n.count
  %strides = getelementptr i64, ptr %sizes, i64 %outer
  %share.0 = add i64 %total, %all
  %share.1 = sub i64 %share.0, 1
  %share.2 = udiv i64 %share.1, %all
  %share.3 = add i64 %share.2, 63
  %share = and i64 %share.3, -64
  %start = mul i64 %share, %me
  %end.0 = add i64 %start, %share
  %end.1 = icmp ult i64 %end.0, %total
  %end = select i1 %end.1, i64 %end.0, i64 %total
  %any = icmp ult i64 %start, %end
  br i1 %any, label %choose, label %done
choose:
  %gathered.p = getelementptr i64, ptr %job, i64 6
  %gathered = load i64, ptr %gathered.p
  %can = icmp ne i64 %gathered, 0
  %brief = icmp ult i64 %inner, SHORT
  %gathers = and i1 %can, %brief
  br i1 %gathers, label %gather, label %begin
gather:
  call void @gather(ptr %job, ptr %args, ptr %base, ptr %at, ptr %tail, i64 %start, i64 %end)
  ret void
begin:
  %row = udiv i64 %start, %inner
  %col = urem i64 %start, %inner
  call void @shift(ptr %base, ptr %address, i64 0, ptr %step, i64 %count)
  call void @seek(ptr %base, ptr %counters, ptr %sizes, ptr %strides, i64 %outer, i64 %count, i64 %row)
  br label %rows
rows:
  %pos = phi i64 [%start, %begin], [%pos.next, %advance]
  %from = phi i64 [%col, %begin], [0, %advance]
  %room = sub i64 %inner, %from
  %left = sub i64 %end, %pos
  %short = icmp ult i64 %left, %room
  %len = select i1 %short, i64 %left, i64 %room
  call void @shift(ptr %at, ptr %base, i64 %from, ptr %step, i64 %count)
  call void @row(ptr %job, ptr %at, ptr %step, ptr %numbers, ptr %spare, ptr %tail, i64 %len)
  %pos.next = add i64 %pos, %len
  %more = icmp ult i64 %pos.next, %end
  br i1 %more, label %advance, label %done
advance:
  call void @next_row(ptr %base, ptr %counters, ptr %sizes, ptr %strides, i64 %outer, i64 %count)
  br label %rows
done:
  ret void
}

define internal void @row(ptr %job, ptr %at, ptr %step, ptr %numbers, ptr %spare, ptr %tail, i64 %n) {
entry:
  %vectors = load ptr, ptr %job
  %count.p = getelementptr i64, ptr %job, i64 1
  %count = load i64, ptr %count.p
  %lanes.p = getelementptr i64, ptr %job, i64 3
  %lanes = load i64, ptr %lanes.p
  %traits = getelementptr i64, ptr %job, i64 7
  %mask = sub i64 0, %lanes
  %full = and i64 %n, %mask
  %left = sub i64 %n, %full
  %some = icmp ne i64 %full, 0
  br i1 %some, label %body, label %check
body:
  call void %vectors(ptr %at, ptr %step, ptr %numbers, i64 %full)
  br label %check
check:
  %uneven = icmp ne i64 %left, 0
  br i1 %uneven, label %last, label %exit
last:
  %again.p = getelementptr i64, ptr %job, i64 5
  %again.word = load i64, ptr %again.p
  %again = icmp ne i64 %again.word, 0
  %overlap = and i1 %again, %some
  br i1 %overlap, label %overlapping, label %rest
overlapping:
  %back = sub i64 %n, %lanes
  call void @shift(ptr %at, ptr %at, i64 %back, ptr %step, i64 %count)
  call void %vectors(ptr %at, ptr %step, ptr %numbers, i64 %lanes)
  br label %exit
rest:
  %tail.step = getelementptr i64, ptr %spare, i64 %count
  call void @shift(ptr %at, ptr %at, i64 %full, ptr %step, i64 %count)
  call void @tails(ptr %at, ptr %step, ptr %spare, ptr %tail.step, ptr %tail, ptr %traits, i64 %count, i64 %lanes,
                   i64 %left, i1 false)
  call void %vectors(ptr %spare, ptr %tail.step, ptr %numbers, i64 %lanes)
  call void @tails(ptr %at, ptr %step, ptr %spare, ptr %tail.step, ptr %tail, ptr %traits, i64 %count, i64 %lanes,
                   i64 %left, i1 true)
  br label %exit
exit:
  ret void
}

; Give each access that moves a buffer: first copy in what is loaded, afterwards copy out what is stored.
define internal void @tails(ptr %at, ptr %step, ptr %tail.at, ptr %tail.step, ptr %tail, ptr %traits, i64 %count,
                            i64 %lanes, i64 %n, i1 %out) {
entry:
  br label %loop
loop:
  %a = phi i64 [0, %entry], [%a.next, %next]
  %buffer = phi ptr [%tail, %entry], [%buffer.next, %next]
  %at.p = getelementptr i64, ptr %at, i64 %a
  %here = load ptr, ptr %at.p
  %step.p = getelementptr i64, ptr %step, i64 %a
  %by = load i64, ptr %step.p
  %traits.p = getelementptr i64, ptr %traits, i64 %a
  %trait = load i64, ptr %traits.p
  %size = and i64 %trait, 255
  %moves.bit = and i64 %trait, MOVES
  %moves = icmp ne i64 %moves.bit, 0
  %buffer.bytes = mul i64 %size, %lanes
  %advance = select i1 %moves, i64 %buffer.bytes, i64 0
  %buffer.next = getelementptr i8, ptr %buffer, i64 %advance
  %to = select i1 %moves, ptr %buffer, ptr %here
  %to.step = select i1 %moves, i64 %size, i64 0
  %to.p = getelementptr i64, ptr %tail.at, i64 %a
  store ptr %to, ptr %to.p
  %to.step.p = getelementptr i64, ptr %tail.step, i64 %a
  store i64 %to.step, ptr %to.step.p
  %wanted = select i1 %out, i64 STORED_MOVES, i64 LOADED_MOVES
  %has = and i64 %trait, %wanted
  %copies = icmp eq i64 %has, %wanted
  br i1 %copies, label %pick, label %next
pick:
  %dst = select i1 %out, ptr %here, ptr %buffer
  %dst.step = select i1 %out, i64 %by, i64 %size
  %src = select i1 %out, ptr %buffer, ptr %here
  %src.step = select i1 %out, i64 %size, i64 %by
  call void @copy(ptr %dst, i64 %dst.step, ptr %src, i64 %src.step, i64 %n, i64 %size)
  br label %next
next:
  %a.next = add i64 %a, 1
  %a.more = icmp ult i64 %a.next, %count
  br i1 %a.more, label %loop, label %exit
exit:
  ret void
}
"""

_STUB: Final = """
declare void @{drive}(ptr, ptr, i32)
@job = private constant [{words} x i64] [{values}]
define void @kernel(ptr %args, i32 %threads) {{
  call void @{drive}(ptr @job, ptr %args, i32 %threads)
  ret void
}}
"""


_CONSTANTS: Final = {
    name: str(value)
    for name, value in {
        "GRAIN_LESS_ONE": GRAIN - 1,
        "GRAIN": GRAIN,
        "MOST_OUTER": MOST_OUTER,
        "HEADER": HEADER,
        "COLUMNS_BLOCK": COLUMNS_BLOCK,
        "COLUMNS_LESS": COLUMNS_BLOCK - 1,
        "COLUMNS_ARRAY": 8 * (2 * ROOM + COLUMNS_BLOCK),
        "BLOCK": BLOCK,
        "ROOMS": 2 * ROOM,
        "ARRAY": 8 * 2 * ROOM,
        "STATE": STATE,
        "PANEL_BYTES": PANEL_BYTES,
        "LEAST_BESIDE": LEAST_BESIDE,
        "FEW_APART": FEW_APART,
        "BESIDE": MANY,
        "DRIVE_TEAMS": TEAMS,
        "ROOM_MORE": 2 * ROOM - 1,
        "ROOM_MASK": -ROOM,
        "SHORT": SHORT,
        "GATHERED": GATHERED,
        "STORED_MOVES": STORED | MOVES,
        "LOADED_MOVES": LOADED | MOVES,
        "MOVES": MOVES,
        "LOADED": LOADED,
        "STORED": STORED,
        "VARIES": VARIES,
        "DENSE": DENSE,
    }.items()
}


def driver(parallel: bool) -> str:
    """Write the module that all kernels share; it exports a function for each kind of them."""
    parts = (_RUN, RUN_ROWS, PANELS, RUN_COLUMNS, RUN_CHUNKS, GATHER, COPIES)
    text = "".join(parts) + (_THREADS if parallel else "")
    for symbol, run in KINDS.items():
        worker = f"worker_{run}"
        drive = _PARALLEL if parallel else SERIAL_CHUNKS if symbol == CHUNKS else _SERIAL
        text += drive.replace("DRIVE", symbol).replace("RUN", run).replace("WORKER", worker)
    text += RUN_WHOLE.replace("RUN_PARTS", IN_PARALLEL if parallel else ONE_BY_ONE)
    text += RUN_TEAM if parallel else ""
    return re.sub(r"\b[A-Z][A-Z_]+\b", lambda name: _CONSTANTS.get(name[0], name[0]), text)


def entry(form: KernelForm) -> str:
    """Return which of the driver's functions a form's kernel calls."""
    if form.axes == WHOLE:
        return TEAMS
    if form.has_rows:
        return COLUMNS if form.has_columns else ROWS
    return CHUNKS if form.by_position else ELEMENTS


def stub(traits: list[int], numbers: int, lanes: int, gathers: bool) -> str:
    """Write a kernel's job and its entry ``kernel(args, threads)``."""
    tail = (GATHERED if gathers else lanes) * sum(trait & 255 for trait in traits if trait & VARIES)
    again = not any(trait & LOADED and trait & STORED for trait in traits)
    words = [len(traits), numbers, lanes, max(tail, 1), int(again)]
    gathered = "ptrtoint (ptr @gathered to i64)" if gathers else "0"
    return _stub(ELEMENTS, *words, gathered, *traits)


def chunk_stub(traits: list[int], numbers: int, multiple: int) -> str:
    """Write the job of a kernel by position, and its entry; ``multiple``: of elements, in eager's vector body."""
    tail = multiple * sum(trait & 255 for trait in traits if trait & MOVES)
    words = [len(traits), numbers, multiple, max(tail, 1), 0]
    return _stub(CHUNKS, *words, "ptrtoint (ptr @singly to i64)", *traits)


def column_stub(accesses: int, numbers: int, element_bytes: int, arrays: int) -> str:
    """Write the job of a kernel of columns, and its entry."""
    return _stub(COLUMNS, accesses, numbers, element_bytes, arrays)


def row_stub(
    traits: list[int], numbers: int, element_bytes: int, arrays: int, least_rows: int, most: int
) -> str:
    """Write the job of a kernel of rows, and its entry; ``most``: 0 if it has no code for rows side by side."""
    beside = "ptrtoint (ptr @beside to i64)" if most else 0
    words = len(traits), numbers, element_bytes, arrays, least_rows
    return _stub(ROWS, *words, beside, most, *traits)


def whole_stub(
    accesses: int, numbers: int, element_bytes: int, arrays: int, reductions: int, of_parts: int
) -> str:
    """Write the job of a kernel that reduces all elements, and its entry; ``of_parts``: arrays that each part needs."""
    join = "ptrtoint (ptr @join to i64)"
    return _stub(TEAMS, accesses, numbers, element_bytes, arrays, reductions, join, of_parts)


def _stub(drive: str, *words: int | str) -> str:
    values = ["ptrtoint (ptr @vectors to i64)", *words]
    return _STUB.format(
        drive=drive, words=len(values), values=", ".join(f"i64 {value}" for value in values)
    )
