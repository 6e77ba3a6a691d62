"""The part of the driver that minds where elements stand: it cuts them into chunks as eager does. See :mod:`driver`.

Text with the constants of ``driver.py`` left to fill in.
"""

from __future__ import annotations

from typing import Final

RUN_CHUNKS: Final = """
define internal void @run_chunks(ptr %job, ptr %args, i64 %me, i64 %all) {
entry:
  %code = load ptr, ptr %job
  %count.p = getelementptr i64, ptr %job, i64 1
  %count = load i64, ptr %count.p
  %multiple.p = getelementptr i64, ptr %job, i64 3
  %multiple = load i64, ptr %multiple.p
  %bytes.p = getelementptr i64, ptr %job, i64 4
  %bytes = load i64, ptr %bytes.p
  %singly.p = getelementptr i64, ptr %job, i64 6
  %singly = load ptr, ptr %singly.p
  %traits = getelementptr i64, ptr %job, i64 7
  %at = alloca i64, i64 %count
  %spare.0 = mul i64 %count, 2
  %spare = alloca i64, i64 %spare.0
  %tail.step = getelementptr i64, ptr %spare, i64 %count
  %tail = alloca i8, i64 %bytes, align 64
  call void @llvm.memset.p0.i64(ptr %tail, i8 0, i64 %bytes, i1 false)
  %total = load i64, ptr %args
  %address = getelementptr i64, ptr %args, i64 HEADER
  %step = getelementptr i64, ptr %address, i64 %count
  %numbers = getelementptr i64, ptr %step, i64 %count
  %share.0 = add i64 %total, %all
  %share.1 = sub i64 %share.0, 1
  %share = udiv i64 %share.1, %all
  %start = mul i64 %share, %me
  %end.0 = add i64 %start, %share
  %end.1 = icmp ult i64 %end.0, %total
  %end = select i1 %end.1, i64 %end.0, i64 %total
  %any = icmp ult i64 %start, %end
  br i1 %any, label %chunk, label %done
chunk:
  call void @shift(ptr %at, ptr %address, i64 %start, ptr %step, i64 %count)
  %n = sub i64 %end, %start
  %mask = sub i64 0, %multiple
  %full = and i64 %n, %mask
  %left = sub i64 %n, %full
  %some = icmp ne i64 %full, 0
  br i1 %some, label %body, label %check
body:
  call void %code(ptr %at, ptr %step, ptr %numbers, i64 %full)
  br label %check
check:
  %uneven = icmp ne i64 %left, 0
  br i1 %uneven, label %rest, label %done
rest:
  call void @shift(ptr %at, ptr %at, i64 %full, ptr %step, i64 %count)
  call void @tails(ptr %at, ptr %step, ptr %spare, ptr %tail.step, ptr %tail, ptr %traits, i64 %count, i64 %multiple,
                   i64 %left, i1 false)
  call void %singly(ptr %spare, ptr %tail.step, ptr %numbers, i64 %multiple)
  call void @tails(ptr %at, ptr %step, ptr %spare, ptr %tail.step, ptr %tail, ptr %traits, i64 %count, i64 %multiple,
                   i64 %left, i1 true)
  br label %done
done:
  ret void
}
"""

# Without threads the chunks are the same, one after the other.
SERIAL_CHUNKS: Final = """
define void @torchy_drive_chunks(ptr %job, ptr %args, i32 %threads) {
entry:
  %total = load i64, ptr %args
  %more = add i64 %total, GRAIN_LESS_ONE
  %grains = udiv i64 %more, GRAIN
  %threads64 = zext i32 %threads to i64
  %few = icmp ult i64 %grains, %threads64
  %team.0 = select i1 %few, i64 %grains, i64 %threads64
  %none = icmp eq i64 %team.0, 0
  %team = select i1 %none, i64 1, i64 %team.0
  br label %loop
loop:
  %me = phi i64 [0, %entry], [%next, %loop]
  call void @run_chunks(ptr %job, ptr %args, i64 %me, i64 %team)
  %next = add i64 %me, 1
  %again = icmp ult i64 %next, %team
  br i1 %again, label %loop, label %exit
exit:
  ret void
}
"""
