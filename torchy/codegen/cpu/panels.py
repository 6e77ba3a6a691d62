"""The part of the driver that serves rows side by side: it tells whether they can be, and copies what is read again.

Rows that follow each other are done side by side, one in each lane (see :mod:`torchy.codegen.cpu.beside`), where accesses
go from one to the next not at all, or by one element. What does neither, but is the same for all outer dimensions but the
innermost, is copied so that it does: a *panel*, transposed. Which of the outer dimensions is the innermost is the walker's
choice (``record/walker/pack.cpp``); where its rows' panels would take much memory, they are done in chunks.

Text with the constants of ``driver.py`` left to fill in.
"""

from __future__ import annotations

from typing import Final

_TILE: Final = 8  # rows, and elements, that are transposed at a time


def _transposed() -> str:
    """Write the transposition of a tile from ``%in0``, rows %stride bytes apart, to ``%out0``, lines %line bytes apart."""
    kind, lines = f"<{_TILE} x i32>", []
    for k in range(1, _TILE):
        lines.append(f"%in{k} = getelementptr i8, ptr %in{k - 1}, i64 %stride")
        lines.append(f"%out{k} = getelementptr i8, ptr %out{k - 1}, i64 %line")
    rows = [f"%row{k}" for k in range(_TILE)]
    lines += [f"{row} = load {kind}, ptr %in{k}, align 1" for k, row in enumerate(rows)]
    apart, made = 1, list(rows)
    while apart < _TILE:  # quarters of blocks of twice as many rows and elements change places
        for k in (k for k in range(_TILE) if not k & apart):
            for at, of in ((k, 0), (k + apart, apart)):
                picked = ", ".join(
                    f"i32 {lane + of if not lane & apart else _TILE + lane - apart + of}"
                    for lane in range(_TILE)
                )
                given = f"{kind} {rows[k]}, {kind} {rows[k + apart]}"
                made[at] = f"%row{at}.{apart}"
                lines.append(f"{made[at]} = shufflevector {given}, <{_TILE} x i32> <{picked}>")
        rows, apart = list(made), 2 * apart
    lines += [f"store {kind} {row}, ptr %out{k}, align 1" for k, row in enumerate(rows)]
    return "".join(f"  {line}\n" for line in lines)


PANELS: Final = (
    """
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)

; Tell how an access goes from row to row: 0 as rows side by side need it, 1 it needs a panel, 2 its rows lie apart,
; 3 there is one element for each row, or for all.
define internal i64 @panel(i64 %trait, ptr %strides, i64 %outer, i64 %count, i64 %a) {
entry:
  %size = and i64 %trait, 255
  %varies.bit = and i64 %trait, VARIES
  %still = icmp eq i64 %varies.bit, 0
  br i1 %still, label %row, label %moves
moves:
  %last = sub i64 %outer, 1
  %last.word = mul i64 %last, %count
  %word = add i64 %last.word, %a
  %stride.p = getelementptr i64, ptr %strides, i64 %word
  %stride = load i64, ptr %stride.p
  %stored.bit = and i64 %trait, STORED
  %stored = icmp ne i64 %stored.bit, 0
  %next = icmp eq i64 %stride, %size
  br i1 %next, label %fits, label %other
other:
  %same = icmp eq i64 %stride, 0
  %read = xor i1 %stored, true
  %broadcast = and i1 %same, %read
  br i1 %broadcast, label %fits, label %again
again:
  %alone = icmp ult i64 %outer, 2
  %no = or i1 %alone, %stored
  br i1 %no, label %none, label %around
around:
  %d = phi i64 [0, %again], [%d.next, %around.next]
  %d.word = mul i64 %d, %count
  %d.at = add i64 %d.word, %a
  %d.stride.p = getelementptr i64, ptr %strides, i64 %d.at
  %d.stride = load i64, ptr %d.stride.p
  %d.same = icmp eq i64 %d.stride, 0
  br i1 %d.same, label %around.next, label %none
around.next:
  %d.next = add i64 %d, 1
  %d.more = icmp ult i64 %d.next, %last
  br i1 %d.more, label %around, label %wanted
wanted:
  ret i64 1
fits:
  ret i64 0
none:
  ret i64 2
row:
  ret i64 3
}

; Bytes that panels take for each element of a row, less than 0 if rows had better be done one after the other: what lies
; apart is copied element by element, that pays for very short rows only.
define internal i64 @panel_room(ptr %traits, ptr %strides, i64 %outer, i64 %count, i64 %n) {
entry:
  %short = icmp ult i64 %n, FEW_APART
  br label %loop
loop:
  %a = phi i64 [0, %entry], [%a.next, %next]
  %room = phi i64 [0, %entry], [%room.next, %next]
  %trait.p = getelementptr i64, ptr %traits, i64 %a
  %trait = load i64, ptr %trait.p
  %how = call i64 @panel(i64 %trait, ptr %strides, i64 %outer, i64 %count, i64 %a)
  %apart = icmp eq i64 %how, 2
  %allowed = select i1 %apart, i1 %short, i1 true
  br i1 %allowed, label %next, label %no
next:
  %size = and i64 %trait, 255
  %wanted = icmp eq i64 %how, 1
  %bytes = select i1 %wanted, i64 %size, i64 0
  %room.next = add i64 %room, %bytes
  %a.next = add i64 %a, 1
  %a.more = icmp ult i64 %a.next, %count
  br i1 %a.more, label %loop, label %all
all:
  ret i64 %room.next
no:
  ret i64 -1
}

; Transpose rows of four-byte elements, a tile at a time.
define internal void @transpose(ptr %to, i64 %line, ptr %from, i64 %stride, i64 %rows, i64 %n) {
entry:
  %rows.any = icmp ne i64 %rows, 0
  %n.any = icmp ne i64 %n, 0
  %any = and i1 %rows.any, %n.any
  br i1 %any, label %down, label %exit
down:
  %j = phi i64 [0, %entry], [%j.next, %down.next]
  %from.by = mul i64 %j, %stride
  %from.row = getelementptr i8, ptr %from, i64 %from.by
  %to.row = getelementptr i32, ptr %to, i64 %j
  br label %across
across:
  %i = phi i64 [0, %down], [%i.next, %across]
  %in0 = getelementptr i32, ptr %from.row, i64 %i
  %out.by = mul i64 %i, %line
  %out0 = getelementptr i8, ptr %to.row, i64 %out.by
"""
    + _transposed()
    + """
  %i.next = add i64 %i, 8
  %i.more = icmp ult i64 %i.next, %n
  br i1 %i.more, label %across, label %down.next
down.next:
  %j.next = add i64 %j, 8
  %j.more = icmp ult i64 %j.next, %rows
  br i1 %j.more, label %down, label %exit
exit:
  ret void
}

; Make the panels, and have the accesses go through them.
define internal void @make_panels(ptr %traits, ptr %address, ptr %step, ptr %strides, i64 %outer, i64 %count,
                                  i64 %rows, i64 %n, ptr %panels) {
entry:
  %last = sub i64 %outer, 1
  %last.word = mul i64 %last, %count
  br label %loop
loop:
  %a = phi i64 [0, %entry], [%a.next, %next]
  %to = phi ptr [%panels, %entry], [%to.next, %next]
  %trait.p = getelementptr i64, ptr %traits, i64 %a
  %trait = load i64, ptr %trait.p
  %how = call i64 @panel(i64 %trait, ptr %strides, i64 %outer, i64 %count, i64 %a)
  %size = and i64 %trait, 255
  %wanted = icmp eq i64 %how, 1
  br i1 %wanted, label %make, label %next
make:
  %address.p = getelementptr i64, ptr %address, i64 %a
  %from = load ptr, ptr %address.p
  %step.p = getelementptr i64, ptr %step, i64 %a
  %by = load i64, ptr %step.p
  %word = add i64 %last.word, %a
  %stride.p = getelementptr i64, ptr %strides, i64 %word
  %stride = load i64, ptr %stride.p
  %line = mul i64 %rows, %size
  %runs.0 = icmp eq i64 %by, %size
  %four = icmp eq i64 %size, 4
  %runs = and i1 %runs.0, %four
  %n.whole = and i64 %n, -8
  %rows.whole = and i64 %rows, -8
  %tiled.n = select i1 %runs, i64 %n.whole, i64 0
  %tiled.rows = select i1 %runs, i64 %rows.whole, i64 0
  call void @transpose(ptr %to, i64 %line, ptr %from, i64 %stride, i64 %tiled.rows, i64 %tiled.n)
  br label %lines
lines:
  %i = phi i64 [0, %make], [%i.next, %lines.next]
  %tiled.line = icmp ult i64 %i, %tiled.n
  %done = select i1 %tiled.line, i64 %tiled.rows, i64 0
  %done.to = mul i64 %done, %size
  %done.from = mul i64 %done, %stride
  %rest = sub i64 %rows, %done
  %to.by = mul i64 %i, %line
  %to.at = add i64 %to.by, %done.to
  %to.line = getelementptr i8, ptr %to, i64 %to.at
  %from.by = mul i64 %i, %by
  %from.at = add i64 %from.by, %done.from
  %from.line = getelementptr i8, ptr %from, i64 %from.at
  %rest.any = icmp ne i64 %rest, 0
  br i1 %rest.any, label %lines.copy, label %lines.next
lines.copy:
  call void @copy(ptr %to.line, i64 %size, ptr %from.line, i64 %stride, i64 %rest, i64 %size)
  br label %lines.next
lines.next:
  %i.next = add i64 %i, 1
  %i.more = icmp ult i64 %i.next, %n
  br i1 %i.more, label %lines, label %made
made:
  store ptr %to, ptr %address.p
  store i64 %line, ptr %step.p
  store i64 %size, ptr %stride.p
  br label %next
next:
  %used = phi i64 [0, %loop], [%line, %made]
  %used.all = mul i64 %used, %n
  %to.next = getelementptr i8, ptr %to, i64 %used.all
  %a.next = add i64 %a, 1
  %a.more = icmp ult i64 %a.next, %count
  br i1 %a.more, label %loop, label %exit
exit:
  ret void
}

; Rows side by side where they can be, else one after the other.
define internal void @run_rows(ptr %job, ptr %args, i64 %me, i64 %all) {
entry:
  %code = load ptr, ptr %job
  %beside.p = getelementptr i64, ptr %job, i64 6
  %beside = load ptr, ptr %beside.p
  %most.p = getelementptr i64, ptr %job, i64 7
  %most = load i64, ptr %most.p
  %traits = getelementptr i64, ptr %job, i64 8
  %inner.p = getelementptr i64, ptr %args, i64 1
  %inner = load i64, ptr %inner.p
  %outer.p = getelementptr i64, ptr %args, i64 2
  %outer = load i64, ptr %outer.p
  %known = icmp ne ptr %beside, null
  %few = icmp ult i64 %inner, %most
  %nested = icmp ne i64 %outer, 0
  %can.0 = and i1 %known, %few
  %can = and i1 %can.0, %nested
  br i1 %can, label %look, label %plain
look:
  %count.p = getelementptr i64, ptr %job, i64 1
  %count = load i64, ptr %count.p
  %n.count.p = getelementptr i64, ptr %job, i64 2
  %n.count = load i64, ptr %n.count.p
  %twice = mul i64 %count, 2
  %fixed = add i64 %twice, %n.count
  %sizes.at = add i64 %fixed, HEADER
  %strides.at = add i64 %sizes.at, %outer
  %strides = getelementptr i64, ptr %args, i64 %strides.at
  %last = sub i64 %outer, 1
  %last.at = add i64 %sizes.at, %last
  %rows.p = getelementptr i64, ptr %args, i64 %last.at
  %rows = load i64, ptr %rows.p
  %many = icmp uge i64 %rows, LEAST_BESIDE
  br i1 %many, label %ask, label %plain
ask:
  %room = call i64 @panel_room(ptr %traits, ptr %strides, i64 %outer, i64 %count, i64 %inner)
  %no = icmp slt i64 %room, 0
  br i1 %no, label %plain, label %side
side:
  ; so many rows at a time that their panels stay in a cache
  %stride.words = mul i64 %outer, %count
  %words = add i64 %strides.at, %stride.words
  %bytes = mul i64 %words, 8
  %own = alloca i64, i64 %words
  %address = getelementptr i64, ptr %own, i64 HEADER
  %step = getelementptr i64, ptr %address, i64 %count
  %own.rows = getelementptr i64, ptr %own, i64 %last.at
  %own.strides = getelementptr i64, ptr %own, i64 %strides.at
  %last.word = mul i64 %last, %count
  %own.last = getelementptr i64, ptr %own.strides, i64 %last.word
  %total = load i64, ptr %args
  %around = udiv i64 %total, %rows
  %row.bytes = mul i64 %room, %inner
  %copies = icmp ne i64 %room, 0
  %divisor = select i1 %copies, i64 %row.bytes, i64 1
  %fit.0 = udiv i64 PANEL_BYTES, %divisor
  %fit.1 = add i64 %fit.0, BESIDE
  %fit.2 = and i64 %fit.1, -BESIDE
  %fits = icmp ult i64 %fit.2, %rows
  %cut = and i1 %copies, %fits
  %chunk = select i1 %cut, i64 %fit.2, i64 %rows
  %chunks.0 = add i64 %rows, %chunk
  %chunks.1 = sub i64 %chunks.0, 1
  %chunks = udiv i64 %chunks.1, %chunk
  %panel.bytes = mul i64 %row.bytes, %chunk
  %panels = call ptr @malloc(i64 %panel.bytes)
  ; a thread does some of these, or a share of each
  %each = mul i64 %all, 4
  %apart = icmp uge i64 %chunks, %each
  %begin = select i1 %apart, i64 %me, i64 0
  %by = select i1 %apart, i64 %all, i64 1
  %me.of = select i1 %apart, i64 0, i64 %me
  %all.of = select i1 %apart, i64 1, i64 %all
  br label %some
some:
  %which = phi i64 [%begin, %side], [%which.next, %walk]
  call void @llvm.memcpy.p0.p0.i64(ptr %own, ptr %args, i64 %bytes, i1 false)
  %first = mul i64 %which, %chunk
  %left = sub i64 %rows, %first
  %short = icmp ult i64 %left, %chunk
  %here = select i1 %short, i64 %left, i64 %chunk
  %total.here = mul i64 %around, %here
  store i64 %total.here, ptr %own
  store i64 %here, ptr %own.rows
  call void @shift(ptr %address, ptr %address, i64 %first, ptr %own.last, i64 %count)
  br i1 %copies, label %copy, label %walk
copy:
  call void @make_panels(ptr %traits, ptr %address, ptr %step, ptr %own.strides, i64 %outer, i64 %count, i64 %here,
                         i64 %inner, ptr %panels)
  br label %walk
walk:
  call void @walk_rows(ptr %job, ptr %own, ptr %beside, i64 BESIDE, i64 %me.of, i64 %all.of)
  %which.next = add i64 %which, %by
  %more = icmp ult i64 %which.next, %chunks
  br i1 %more, label %some, label %end
end:
  call void @free(ptr %panels)
  ret void
plain:
  call void @walk_rows(ptr %job, ptr %args, ptr %code, i64 1, i64 %me, i64 %all)
  ret void
}
"""
)
