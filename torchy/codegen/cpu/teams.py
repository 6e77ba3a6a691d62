"""The part of the driver that serves what reduces all elements: in eager's parts, a part for each thread. See :mod:`driver`.

``vectors`` and ``join`` are in :mod:`torchy.codegen.cpu.whole`. As eager's ``two_pass_reduction``
(``ATen/native/TensorIteratorReduce.cpp``): of T threads, as many have a part as there are grains; the values of all T are
combined. How many there are only shows once they have come (``OMP_THREAD_LIMIT``). Text with the constants of ``driver.py``
left to fill in.
"""

from __future__ import annotations

from typing import Final

RUN_WHOLE: Final = """
; Do a part, block by block.
define internal void @part(ptr %job, ptr %args, ptr %values, i64 %parts, i64 %which, i64 %from, i64 %to) {
entry:
  %code = load ptr, ptr %job
  %count.p = getelementptr i64, ptr %job, i64 1
  %count = load i64, ptr %count.p
  %bytes.p = getelementptr i64, ptr %job, i64 3
  %bytes = load i64, ptr %bytes.p
  %reductions.p = getelementptr i64, ptr %job, i64 5
  %reductions = load i64, ptr %reductions.p
  %at = alloca i64, i64 %count
  %address = getelementptr i64, ptr %args, i64 HEADER
  %step = getelementptr i64, ptr %address, i64 %count
  %numbers = getelementptr i64, ptr %step, i64 %count
  %arrays.p = getelementptr i64, ptr %job, i64 7
  %arrays = load i64, ptr %arrays.p
  %of = sub i64 %to, %from
  %few = icmp ult i64 %of, BLOCK
  %most = select i1 %few, i64 %of, i64 BLOCK
  %most.room = add i64 %most, ROOMS
  %slots = mul i64 %bytes, %most.room
  %arrays.bytes = mul i64 %arrays, ARRAY
  %room.0 = add i64 %slots, %arrays.bytes
  %room.1 = add i64 %room.0, 63
  %room = and i64 %room.1, -64
  %states = mul i64 %reductions, STATE
  %all = add i64 %room, %states
  %scratch = call ptr @malloc(i64 %all)
  %state = getelementptr i8, ptr %scratch, i64 %room
  br label %block
block:
  %first = phi i64 [0, %entry], [%first.next, %block]
  %left = sub i64 %of, %first
  %ends = icmp ult i64 %left, BLOCK
  %n = select i1 %ends, i64 %left, i64 BLOCK
  %pos = add i64 %from, %first
  call void @shift(ptr %at, ptr %address, i64 %pos, ptr %step, i64 %count)
  call void %code(ptr %at, ptr %step, ptr %numbers, i64 %n, ptr %scratch, i64 %first, i64 %of, ptr %state, ptr %values,
                  i64 %parts, i64 %which)
  %first.next = add i64 %first, %n
  %more = icmp ult i64 %first.next, %of
  br i1 %more, label %block, label %exit
exit:
  call void @free(ptr %scratch)
  ret void
}

; Do the parts of one thread of so many, of a team's.
define internal void @run_whole(ptr %task, i64 %me, i64 %all, i64 %team) {
entry:
  %job = load ptr, ptr %task
  %args.p = getelementptr ptr, ptr %task, i64 1
  %args = load ptr, ptr %args.p
  %values.p = getelementptr ptr, ptr %task, i64 2
  %values = load ptr, ptr %values.p
  %parts.p = getelementptr i64, ptr %task, i64 3
  %parts = load i64, ptr %parts.p
  %total = load i64, ptr %args
  %size.0 = add i64 %total, %team
  %size.1 = sub i64 %size.0, 1
  %size = udiv i64 %size.1, %team
  br label %check
check:
  %which = phi i64 [%me, %entry], [%which.next, %do]
  %some = icmp ult i64 %which, %team
  br i1 %some, label %do, label %exit
do:
  %from = mul i64 %which, %size
  %to.0 = add i64 %from, %size
  %to.few = icmp ult i64 %to.0, %total
  %to = select i1 %to.few, i64 %to.0, i64 %total
  call void @part(ptr %job, ptr %args, ptr %values, i64 %parts, i64 %which, i64 %from, i64 %to)
  %which.next = add i64 %which, %all
  br label %check
exit:
  ret void
}

define void @DRIVE_TEAMS(ptr %job, ptr %args, i32 %threads) {
  %count.p = getelementptr i64, ptr %job, i64 1
  %count = load i64, ptr %count.p
  %arrays.p = getelementptr i64, ptr %job, i64 4
  %arrays = load i64, ptr %arrays.p
  %reductions.p = getelementptr i64, ptr %job, i64 5
  %reductions = load i64, ptr %reductions.p
  %join.p = getelementptr i64, ptr %job, i64 6
  %join = load ptr, ptr %join.p
  %total = load i64, ptr %args
  %more = add i64 %total, GRAIN_LESS_ONE
  %grains = udiv i64 %more, GRAIN
  %threads64 = zext i32 %threads to i64
  %few = icmp ult i64 %grains, %threads64
  %team = select i1 %few, i64 %grains, i64 %threads64
  %alone = icmp ult i64 %team, 2
  %parts = select i1 %alone, i64 1, i64 %threads64
  %values.0 = mul i64 %parts, 8
  %values.bytes = mul i64 %values.0, %reductions
  %arrays.bytes = mul i64 %arrays, ARRAY
  %room = add i64 %values.bytes, %arrays.bytes
  %values = call ptr @malloc(i64 %room)
  %scratch = getelementptr i8, ptr %values, i64 %values.bytes
  %task = alloca [5 x i64]
  store ptr %job, ptr %task
  %task.args = getelementptr i64, ptr %task, i64 1
  store ptr %args, ptr %task.args
  %task.values = getelementptr i64, ptr %task, i64 2
  store ptr %values, ptr %task.values
  %task.parts = getelementptr i64, ptr %task, i64 3
  store i64 %parts, ptr %task.parts
  %task.team = getelementptr i64, ptr %task, i64 4
  store i64 %team, ptr %task.team
  br i1 %alone, label %one, label %many
one:
  call void @run_whole(ptr %task, i64 0, i64 1, i64 1)
  store i64 1, ptr %task.team
  br label %joining
many:
  RUN_PARTS
  br label %joining
joining:
  %address = getelementptr i64, ptr %args, i64 HEADER
  %step = getelementptr i64, ptr %address, i64 %count
  %numbers = getelementptr i64, ptr %step, i64 %count
  %came = load i64, ptr %task.team
  call void %join(ptr %address, ptr %step, ptr %numbers, i64 %total, ptr %scratch, ptr %values, i64 %parts, i64 %came)
  call void @free(ptr %values)
  ret void
}
"""

RUN_TEAM: Final = """
define internal void @worker_whole(ptr %task) {
  %me = call i32 @omp_get_thread_num()
  %all = call i32 @omp_get_num_threads()
  %me64 = zext i32 %me to i64
  %all64 = zext i32 %all to i64
  call void @run_whole(ptr %task, i64 %me64, i64 %all64, i64 %all64)
  %first = icmp eq i32 %me, 0
  br i1 %first, label %tell, label %exit
tell:
  %team.p = getelementptr i64, ptr %task, i64 4
  store i64 %all64, ptr %team.p
  br label %exit
exit:
  ret void
}
"""
IN_PARALLEL: Final = """%team32 = trunc i64 %team to i32
  call void @GOMP_parallel(ptr @worker_whole, ptr %task, i32 %team32, i32 0)"""
ONE_BY_ONE: Final = "call void @run_whole(ptr %task, i64 0, i64 1, i64 %team)"
