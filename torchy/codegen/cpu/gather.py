"""The part of the driver that serves short rows: it gathers many of them into buffers. See :mod:`driver`.

Text with the constants of ``driver.py`` left to fill in.
"""

from __future__ import annotations

from typing import Final

GATHER: Final = """
define internal void @gather(ptr %job, ptr %args, ptr %at, ptr %by, ptr %buffers, i64 %start, i64 %end) {
entry:
  %count.p = getelementptr i64, ptr %job, i64 1
  %count = load i64, ptr %count.p
  %n.count.p = getelementptr i64, ptr %job, i64 2
  %n.count = load i64, ptr %n.count.p
  %lanes.p = getelementptr i64, ptr %job, i64 3
  %lanes = load i64, ptr %lanes.p
  %code.p = getelementptr i64, ptr %job, i64 6
  %code = load ptr, ptr %code.p
  %address = getelementptr i64, ptr %args, i64 HEADER
  %step = getelementptr i64, ptr %address, i64 %count
  %numbers = getelementptr i64, ptr %step, i64 %count
  %lanes.less = sub i64 %lanes, 1
  %lanes.mask = sub i64 0, %lanes
  br label %block
block:
  %pos = phi i64 [%start, %entry], [%pos.next, %scattered]
  %left = sub i64 %end, %pos
  %small = icmp ult i64 %left, GATHERED
  %n = select i1 %small, i64 %left, i64 GATHERED
  %n.more = add i64 %n, %lanes.less
  %n.full = and i64 %n.more, %lanes.mask
  %uneven = icmp ne i64 %n, %n.full
  call void @place(ptr %job, ptr %args, ptr %at, ptr %by, ptr %buffers, i64 %pos, i64 %n, i1 %uneven, i1 false)
  call void %code(ptr %at, ptr %by, ptr %numbers, i64 %n.full)
  br label %scattered
scattered:
  call void @place(ptr %job, ptr %args, ptr %at, ptr %by, ptr %buffers, i64 %pos, i64 %n, i1 %uneven, i1 true)
  %pos.next = add i64 %pos, %n
  %more = icmp ult i64 %pos.next, %end
  br i1 %more, label %block, label %exit
exit:
  ret void
}

; Say where each access is: in its own memory, or in a buffer, copied in before and out after.
define internal void @place(ptr %job, ptr %args, ptr %at, ptr %by, ptr %buffers, i64 %pos, i64 %n, i1 %uneven, i1 %out) {
entry:
  %count.p = getelementptr i64, ptr %job, i64 1
  %count = load i64, ptr %count.p
  %address = getelementptr i64, ptr %args, i64 HEADER
  %traits = getelementptr i64, ptr %job, i64 7
  br label %loop
loop:
  %a = phi i64 [0, %entry], [%a.next, %next]
  %buffer = phi ptr [%buffers, %entry], [%buffer.next, %next]
  %traits.p = getelementptr i64, ptr %traits, i64 %a
  %trait = load i64, ptr %traits.p
  %size = and i64 %trait, 255
  %address.p = getelementptr i64, ptr %address, i64 %a
  %own = load ptr, ptr %address.p
  %varies.bit = and i64 %trait, VARIES
  %varies = icmp ne i64 %varies.bit, 0
  %dense.bit = and i64 %trait, DENSE
  %dense = icmp ne i64 %dense.bit, 0
  %even = xor i1 %uneven, true
  %direct = and i1 %dense, %even
  %indirect = xor i1 %direct, true
  %buffered = and i1 %varies, %indirect
  %bytes = mul i64 %size, GATHERED
  %use = select i1 %varies, i64 %bytes, i64 0
  %buffer.next = getelementptr i8, ptr %buffer, i64 %use
  %offset.0 = mul i64 %pos, %size
  %offset = select i1 %varies, i64 %offset.0, i64 0
  %here = getelementptr i8, ptr %own, i64 %offset
  %to = select i1 %buffered, ptr %buffer, ptr %here
  %at.p = getelementptr i64, ptr %at, i64 %a
  store ptr %to, ptr %at.p
  %by.p = getelementptr i64, ptr %by, i64 %a
  store i64 %size, ptr %by.p
  %wanted = select i1 %out, i64 STORED, i64 LOADED
  %has = and i64 %trait, %wanted
  %touched = icmp ne i64 %has, 0
  %copies = and i1 %touched, %buffered
  br i1 %copies, label %copy, label %next
copy:
  call void @walk(ptr %job, ptr %args, i64 %a, ptr %own, ptr %buffer, i64 %size, i64 %pos, i64 %n, i1 %out)
  br label %next
next:
  %a.next = add i64 %a, 1
  %a.more = icmp ult i64 %a.next, %count
  br i1 %a.more, label %loop, label %exit
exit:
  ret void
}

; Copy n elements of one access, from position pos of the space, to or from a buffer.
define internal void @walk(ptr %job, ptr %args, i64 %a, ptr %own, ptr %buffer, i64 %size, i64 %pos, i64 %n, i1 %out) {
entry:
  %counters = alloca [MOST_OUTER x i64]
  %count.p = getelementptr i64, ptr %job, i64 1
  %count = load i64, ptr %count.p
  %n.count.p = getelementptr i64, ptr %job, i64 2
  %n.count = load i64, ptr %n.count.p
  %inner.p = getelementptr i64, ptr %args, i64 1
  %inner = load i64, ptr %inner.p
  %outer.p = getelementptr i64, ptr %args, i64 2
  %outer = load i64, ptr %outer.p
  %step.word = add i64 %count, %a
  %step.word2 = add i64 %step.word, HEADER
  %step.p = getelementptr i64, ptr %args, i64 %step.word2
  %step = load i64, ptr %step.p
  %numbers.word = add i64 %count, %count
  %sizes.word = add i64 %numbers.word, %n.count
  %sizes.word2 = add i64 %sizes.word, HEADER
  %sizes = getelementptr i64, ptr %args, i64 %sizes.word2
  %strides.0 = getelementptr i64, ptr %sizes, i64 %outer
  %strides = getelementptr i64, ptr %strides.0, i64 %a
  %row = udiv i64 %pos, %inner
  %col = urem i64 %pos, %inner
  br label %seek
seek:
  %seek.d = phi i64 [%outer, %entry], [%seek.next, %seek.step]
  %seek.left = phi i64 [%row, %entry], [%seek.rest, %seek.step]
  %seek.at = phi ptr [%own, %entry], [%seek.moved, %seek.step]
  %seek.done = icmp eq i64 %seek.d, 0
  br i1 %seek.done, label %rows, label %seek.step
seek.step:
  %seek.next = sub i64 %seek.d, 1
  %seek.size.p = getelementptr i64, ptr %sizes, i64 %seek.next
  %seek.size = load i64, ptr %seek.size.p
  %seek.count = urem i64 %seek.left, %seek.size
  %seek.rest = udiv i64 %seek.left, %seek.size
  %seek.counter = getelementptr i64, ptr %counters, i64 %seek.next
  store i64 %seek.count, ptr %seek.counter
  %seek.word = mul i64 %seek.next, %count
  %seek.stride.p = getelementptr i64, ptr %strides, i64 %seek.word
  %seek.stride = load i64, ptr %seek.stride.p
  %seek.by = mul i64 %seek.count, %seek.stride
  %seek.moved = getelementptr i8, ptr %seek.at, i64 %seek.by
  br label %seek
rows:
  %from = phi i64 [%col, %seek], [0, %turn]
  %base = phi ptr [%seek.at, %seek], [%turned, %turn]
  %buffer.at = phi ptr [%buffer, %seek], [%buffer.next, %turn]
  %rest = phi i64 [%n, %seek], [%rest.next, %turn]
  %room = sub i64 %inner, %from
  %short = icmp ult i64 %rest, %room
  %len = select i1 %short, i64 %rest, i64 %room
  %from.by = mul i64 %from, %step
  %here = getelementptr i8, ptr %base, i64 %from.by
  %dst = select i1 %out, ptr %here, ptr %buffer.at
  %dst.step = select i1 %out, i64 %step, i64 %size
  %src = select i1 %out, ptr %buffer.at, ptr %here
  %src.step = select i1 %out, i64 %size, i64 %step
  %begins = icmp eq i64 %from, 0
  %whole = icmp eq i64 %len, %inner
  %nested = icmp ne i64 %outer, 0
  %all.0 = and i1 %begins, %whole
  %all = and i1 %all.0, %nested
  br i1 %all, label %several, label %part
part:
  call void @copy(ptr %dst, i64 %dst.step, ptr %src, i64 %src.step, i64 %len, i64 %size)
  br label %copied
several:
  ; whole rows that are as far from each other
  %last = sub i64 %outer, 1
  %last.counter = getelementptr i64, ptr %counters, i64 %last
  %last.size.p = getelementptr i64, ptr %sizes, i64 %last
  %last.size = load i64, ptr %last.size.p
  %last.word = mul i64 %last, %count
  %last.stride.p = getelementptr i64, ptr %strides, i64 %last.word
  %last.stride = load i64, ptr %last.stride.p
  %last.here = load i64, ptr %last.counter
  %ahead = sub i64 %last.size, %last.here
  %fit = udiv i64 %rest, %inner
  %fewer = icmp ult i64 %fit, %ahead
  %m = select i1 %fewer, i64 %fit, i64 %ahead
  %run = mul i64 %inner, %size
  %dst.row = select i1 %out, i64 %last.stride, i64 %run
  %src.row = select i1 %out, i64 %run, i64 %last.stride
  call void @copy_rows(ptr %dst, i64 %dst.row, i64 %dst.step, ptr %src, i64 %src.row, i64 %src.step, i64 %inner, i64 %m,
                       i64 %size)
  %m.less = sub i64 %m, 1
  %last.there = add i64 %last.here, %m.less
  store i64 %last.there, ptr %last.counter
  %m.by = mul i64 %m.less, %last.stride
  %base.last = getelementptr i8, ptr %base, i64 %m.by
  %several.len = mul i64 %m, %inner
  br label %copied
copied:
  %done = phi i64 [%len, %part], [%several.len, %several]
  %base.done = phi ptr [%base, %part], [%base.last, %several]
  %len.bytes = mul i64 %done, %size
  %buffer.next = getelementptr i8, ptr %buffer.at, i64 %len.bytes
  %rest.next = sub i64 %rest, %done
  %more = icmp ne i64 %rest.next, 0
  br i1 %more, label %advance, label %exit
advance:
  %d.0 = phi i64 [%outer, %copied], [%d, %carry]
  %base.0 = phi ptr [%base.done, %copied], [%carried, %carry]
  %d = sub i64 %d.0, 1
  %d.counter = getelementptr i64, ptr %counters, i64 %d
  %d.size.p = getelementptr i64, ptr %sizes, i64 %d
  %d.size = load i64, ptr %d.size.p
  %d.word = mul i64 %d, %count
  %d.stride.p = getelementptr i64, ptr %strides, i64 %d.word
  %d.stride = load i64, ptr %d.stride.p
  %d.count.0 = load i64, ptr %d.counter
  %d.count = add i64 %d.count.0, 1
  %inside = icmp ult i64 %d.count, %d.size
  br i1 %inside, label %turn, label %carry
carry:
  store i64 0, ptr %d.counter
  %back.0 = sub i64 0, %d.count.0
  %back = mul i64 %back.0, %d.stride
  %carried = getelementptr i8, ptr %base.0, i64 %back
  br label %advance
turn:
  store i64 %d.count, ptr %d.counter
  %turned = getelementptr i8, ptr %base.0, i64 %d.stride
  br label %rows
exit:
  ret void
}
"""
