"""The parts of the driver that serve rows and columns: they call a kernel's code a block at a time. See :mod:`driver`.

Text with the constants of ``driver.py`` left to fill in.
"""

from __future__ import annotations

from typing import Final

RUN_ROWS: Final = """
declare ptr @malloc(i64)
declare void @free(ptr)

; Do a thread's share of the rows, a block at a time: blocks have a multiple of so many.
define internal void @walk_rows(ptr %job, ptr %args, ptr %code, i64 %multiple, i64 %me, i64 %all) {
entry:
  %count.p = getelementptr i64, ptr %job, i64 1
  %count = load i64, ptr %count.p
  %n.count.p = getelementptr i64, ptr %job, i64 2
  %n.count = load i64, ptr %n.count.p
  %bytes.p = getelementptr i64, ptr %job, i64 3
  %bytes = load i64, ptr %bytes.p
  %arrays.p = getelementptr i64, ptr %job, i64 4
  %arrays = load i64, ptr %arrays.p
  %counters = alloca [MOST_OUTER x i64]
  %base = alloca i64, i64 %count
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
  ; the innermost of the outer dimensions: rows that are as far from each other
  %nested = icmp ne i64 %outer, 0
  %last.0 = sub i64 %outer, 1
  %last = select i1 %nested, i64 %last.0, i64 0
  %last.size.p = getelementptr i64, ptr %sizes, i64 %last
  %last.word = mul i64 %last, %count
  %last.stride = getelementptr i64, ptr %strides, i64 %last.word
  %last.counter = getelementptr i64, ptr %counters, i64 %last
  store i64 0, ptr %counters
  ; rows in a block
  %fit = udiv i64 BLOCK, %inner
  %least.p = getelementptr i64, ptr %job, i64 5
  %least = load i64, ptr %least.p
  %fit.few = icmp ult i64 %fit, %least
  %block.0 = select i1 %fit.few, i64 %least, i64 %fit
  %block.1 = add i64 %block.0, %multiple
  %block.2 = sub i64 %block.1, 1
  %multiple.mask = sub i64 0, %multiple
  %block = and i64 %block.2, %multiple.mask
  %block.elements = mul i64 %block, %inner
  %room.0 = add i64 %block.elements, ROOM_MORE
  %room.1 = and i64 %room.0, ROOM_MASK
  %room.2 = mul i64 %room.1, %bytes
  %room.3 = add i64 %block, ROOM_MORE
  %room.4 = and i64 %room.3, ROOM_MASK
  %room.5 = mul i64 %room.4, 8
  %room.6 = mul i64 %room.5, %arrays
  %room = add i64 %room.2, %room.6
  %rows = udiv i64 %total, %inner
  %share.0 = add i64 %rows, %all
  %share.1 = sub i64 %share.0, 1
  %share = udiv i64 %share.1, %all
  %start = mul i64 %share, %me
  %end.0 = add i64 %start, %share
  %end.1 = icmp ult i64 %end.0, %rows
  %end = select i1 %end.1, i64 %end.0, i64 %rows
  %any = icmp ult i64 %start, %end
  br i1 %any, label %begin, label %done
begin:
  %scratch = call ptr @malloc(i64 %room)
  call void @shift(ptr %base, ptr %address, i64 0, ptr %step, i64 %count)
  call void @seek(ptr %base, ptr %counters, ptr %sizes, ptr %strides, i64 %outer, i64 %count, i64 %start)
  br label %do
do:
  %pos = phi i64 [%start, %begin], [%pos.next, %advance]
  %here = load i64, ptr %last.counter
  %last.size.0 = load i64, ptr %last.size.p
  %last.size = select i1 %nested, i64 %last.size.0, i64 1
  %ahead = sub i64 %last.size, %here
  %left = sub i64 %end, %pos
  %ends = icmp ult i64 %left, %ahead
  %most = select i1 %ends, i64 %left, i64 %ahead
  %whole = icmp ult i64 %block, %most
  %r = select i1 %whole, i64 %block, i64 %most
  call void %code(ptr %base, ptr %step, ptr %numbers, i64 %inner, i64 %r, ptr %scratch, ptr %last.stride)
  %pos.next = add i64 %pos, %r
  %more = icmp ult i64 %pos.next, %end
  br i1 %more, label %advance, label %free
advance:
  %r.less = sub i64 %r, 1
  %here.last = add i64 %here, %r.less
  store i64 %here.last, ptr %last.counter
  call void @shift(ptr %base, ptr %base, i64 %r.less, ptr %last.stride, i64 %count)
  call void @next_row(ptr %base, ptr %counters, ptr %sizes, ptr %strides, i64 %outer, i64 %count)
  br label %do
free:
  call void @free(ptr %scratch)
  br label %done
done:
  ret void
}
"""

RUN_COLUMNS: Final = """
define internal void @run_columns(ptr %job, ptr %args, i64 %me, i64 %all) {
entry:
  %code = load ptr, ptr %job
  %count.p = getelementptr i64, ptr %job, i64 1
  %count = load i64, ptr %count.p
  %n.count.p = getelementptr i64, ptr %job, i64 2
  %n.count = load i64, ptr %n.count.p
  %bytes.p = getelementptr i64, ptr %job, i64 3
  %bytes = load i64, ptr %bytes.p
  %arrays.p = getelementptr i64, ptr %job, i64 4
  %arrays = load i64, ptr %arrays.p
  %counters = alloca [MOST_OUTER x i64]
  %base = alloca i64, i64 %count
  %at = alloca i64, i64 %count
  %inner.p = getelementptr i64, ptr %args, i64 1
  %inner = load i64, ptr %inner.p
  %outer.p = getelementptr i64, ptr %args, i64 2
  %outer = load i64, ptr %outer.p
  %address = getelementptr i64, ptr %args, i64 HEADER
  %step = getelementptr i64, ptr %address, i64 %count
  %numbers = getelementptr i64, ptr %step, i64 %count
  %sizes = getelementptr i64, ptr %numbers, i64 %n.count
  %strides = getelementptr i64, ptr %sizes, i64 %outer
  ; the innermost of the outer dimensions is the reduced one
  %around = sub i64 %outer, 1
  %rows.p = getelementptr i64, ptr %sizes, i64 %around
  %rows = load i64, ptr %rows.p
  %rows.word = mul i64 %around, %count
  %rows.stride = getelementptr i64, ptr %strides, i64 %rows.word
  %total = load i64, ptr %args
  %matrix = mul i64 %rows, %inner
  %matrices = udiv i64 %total, %matrix
  %block.0 = add i64 %inner, COLUMNS_LESS
  %blocks = udiv i64 %block.0, COLUMNS_BLOCK
  %units = mul i64 %matrices, %blocks
  %share.0 = add i64 %units, %all
  %share.1 = sub i64 %share.0, 1
  %share = udiv i64 %share.1, %all
  %start = mul i64 %share, %me
  %end.0 = add i64 %start, %share
  %end.1 = icmp ult i64 %end.0, %units
  %end = select i1 %end.1, i64 %end.0, i64 %units
  %any = icmp ult i64 %start, %end
  br i1 %any, label %begin, label %done
begin:
  %narrow = icmp ult i64 %inner, COLUMNS_BLOCK
  %wide = select i1 %narrow, i64 %inner, i64 COLUMNS_BLOCK
  %room.0 = mul i64 %rows, %wide
  %room.1 = add i64 %room.0, ROOM_MORE
  %room.2 = and i64 %room.1, ROOM_MASK
  %room.3 = mul i64 %room.2, %bytes
  %room.4 = mul i64 %arrays, COLUMNS_ARRAY
  %room = add i64 %room.3, %room.4
  %scratch = call ptr @malloc(i64 %room)
  br label %do
do:
  %unit = phi i64 [%start, %begin], [%unit.next, %do]
  %which = udiv i64 %unit, %blocks
  %number = urem i64 %unit, %blocks
  %first = mul i64 %number, COLUMNS_BLOCK
  %left = sub i64 %inner, %first
  %few = icmp ult i64 %left, COLUMNS_BLOCK
  %n = select i1 %few, i64 %left, i64 COLUMNS_BLOCK
  call void @shift(ptr %base, ptr %address, i64 0, ptr %step, i64 %count)
  call void @seek(ptr %base, ptr %counters, ptr %sizes, ptr %strides, i64 %around, i64 %count, i64 %which)
  call void @shift(ptr %at, ptr %base, i64 %first, ptr %step, i64 %count)
  call void %code(ptr %at, ptr %step, ptr %numbers, i64 %n, i64 %rows, ptr %scratch, ptr %rows.stride)
  %unit.next = add i64 %unit, 1
  %more = icmp ult i64 %unit.next, %end
  br i1 %more, label %do, label %free
free:
  call void @free(ptr %scratch)
  br label %done
done:
  ret void
}
"""
