"""The LLVM IR around a kernel's vector loop: threads, the walk over outer dimensions, the tail of a row.

A kernel's arguments are 64-bit words::

    elements, inner, outer, address[A], step[A], number[N], size[outer], stride[outer][A]

for A accesses and N numbers; ``inner`` is the innermost size, ``outer`` how many dimensions lie around it, outermost
first; steps (in the inner dimension) and strides are in bytes. A *row* is a run in the inner dimension. Its
last elements, fewer than a vector, are copied to a buffer, so that they go through the same code as all others.
"""

from __future__ import annotations

from typing import Final

from torchy.codegen.cpu.threads import GRAIN

HEADER: Final = 3  # words before the addresses
MOST_OUTER: Final = 64

_PARALLEL: Final = """
declare void @GOMP_parallel(ptr, ptr, i32, i32)
declare i32 @omp_get_thread_num()
declare i32 @omp_get_num_threads()

define internal void @worker(ptr %args) {{
  %me = call i32 @omp_get_thread_num()
  %all = call i32 @omp_get_num_threads()
  %me64 = zext i32 %me to i64
  %all64 = zext i32 %all to i64
  call void @run(ptr %args, i64 %me64, i64 %all64)
  ret void
}}

define void @kernel(ptr %args, i32 %threads) {{
  %total = load i64, ptr %args
  %more = add i64 %total, {grain_less_one}
  %grains = udiv i64 %more, {grain}
  %threads64 = zext i32 %threads to i64
  %few = icmp ult i64 %grains, %threads64
  %team = select i1 %few, i64 %grains, i64 %threads64
  %alone = icmp ult i64 %team, 2
  br i1 %alone, label %one, label %many
one:
  call void @run(ptr %args, i64 0, i64 1)
  ret void
many:
  %team32 = trunc i64 %team to i32
  call void @GOMP_parallel(ptr @worker, ptr %args, i32 %team32, i32 0)
  ret void
}}
"""

_SERIAL: Final = """
define void @kernel(ptr %args, i32 %threads) {
  call void @run(ptr %args, i64 0, i64 1)
  ret void
}
"""

_RUN: Final = """
define internal void @run(ptr %args, i64 %me, i64 %all) {{
  %counters = alloca [{most_outer} x i64]
  %at = alloca {vector}, align 8
  %tail = alloca [{tail_bytes} x i8], align 64
  call void @llvm.memset.p0.i64(ptr %tail, i8 0, i64 {tail_bytes}, i1 false)
  %total = load i64, ptr %args
  %inner.p = getelementptr i64, ptr %args, i64 1
  %inner = load i64, ptr %inner.p
  %outer.p = getelementptr i64, ptr %args, i64 2
  %outer = load i64, ptr %outer.p
  %address.p = getelementptr i64, ptr %args, i64 {header}
  %step.p = getelementptr i64, ptr %args, i64 {step_at}
  %numbers = getelementptr i64, ptr %args, i64 {number_at}
  %sizes = getelementptr i64, ptr %args, i64 {size_at}
  %strides = getelementptr i64, ptr %sizes, i64 %outer
  %address = load {vector}, ptr %address.p, align 8
  %step = load {vector}, ptr %step.p, align 8
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
  br i1 %any, label %begin, label %done
begin:
  %row = udiv i64 %start, %inner
  %col = urem i64 %start, %inner
  br label %seek
seek:
  %seek.d = phi i64 [%outer, %begin], [%seek.next, %seek.step]
  %seek.left = phi i64 [%row, %begin], [%seek.rest, %seek.step]
  %seek.at = phi {vector} [%address, %begin], [%seek.moved, %seek.step]
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
  %seek.word = mul i64 %seek.next, {accesses}
  %seek.stride.p = getelementptr i64, ptr %strides, i64 %seek.word
  %seek.stride = load {vector}, ptr %seek.stride.p, align 8
  %seek.i = insertelement {vector} poison, i64 %seek.count, i64 0
  %seek.v = shufflevector {vector} %seek.i, {vector} poison, <{accesses} x i32> zeroinitializer
  %seek.by = mul {vector} %seek.v, %seek.stride
  %seek.moved = add {vector} %seek.at, %seek.by
  br label %seek
rows:
  %pos = phi i64 [%start, %seek], [%pos.next, %turn]
  %from = phi i64 [%col, %seek], [0, %turn]
  %base = phi {vector} [%seek.at, %seek], [%turned, %turn]
  %room = sub i64 %inner, %from
  %left = sub i64 %end, %pos
  %short = icmp ult i64 %left, %room
  %len = select i1 %short, i64 %left, i64 %room
  %from.i = insertelement {vector} poison, i64 %from, i64 0
  %from.v = shufflevector {vector} %from.i, {vector} poison, <{accesses} x i32> zeroinitializer
  %from.by = mul {vector} %from.v, %step
  %here = add {vector} %base, %from.by
  store {vector} %here, ptr %at, align 8
  call void @row(ptr %at, ptr %step.p, ptr %numbers, ptr %tail, i64 %len)
  %pos.next = add i64 %pos, %len
  %more = icmp ult i64 %pos.next, %end
  br i1 %more, label %advance, label %done
advance:
  %d.0 = phi i64 [%outer, %rows], [%d, %carry]
  %base.0 = phi {vector} [%base, %rows], [%carried, %carry]
  %d = sub i64 %d.0, 1
  %d.counter = getelementptr i64, ptr %counters, i64 %d
  %d.size.p = getelementptr i64, ptr %sizes, i64 %d
  %d.word = mul i64 %d, {accesses}
  %d.stride.p = getelementptr i64, ptr %strides, i64 %d.word
  %d.stride = load {vector}, ptr %d.stride.p, align 8
  %count.0 = load i64, ptr %d.counter
  %count = add i64 %count.0, 1
  %size = load i64, ptr %d.size.p
  %turned = add {vector} %base.0, %d.stride
  %inside = icmp ult i64 %count, %size
  br i1 %inside, label %turn, label %carry
carry:
  store i64 0, ptr %d.counter
  %size.i = insertelement {vector} poison, i64 %size, i64 0
  %size.v = shufflevector {vector} %size.i, {vector} poison, <{accesses} x i32> zeroinitializer
  %back = mul {vector} %size.v, %d.stride
  %carried = sub {vector} %turned, %back
  br label %advance
turn:
  store i64 %count, ptr %d.counter
  br label %rows
done:
  ret void
}}
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
"""

_COPY: Final = """
define internal void @copy{bits}(ptr %to, i64 %to.step, ptr %from, i64 %from.step, i64 %n) {{
  br label %loop
loop:
  %i = phi i64 [0, %0], [%i.next, %loop]
  %to.at = phi ptr [%to, %0], [%to.next, %loop]
  %from.at = phi ptr [%from, %0], [%from.next, %loop]
  %value = load i{bits}, ptr %from.at, align 1
  store i{bits} %value, ptr %to.at, align 1
  %to.next = getelementptr i8, ptr %to.at, i64 %to.step
  %from.next = getelementptr i8, ptr %from.at, i64 %from.step
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, %n
  br i1 %more, label %loop, label %exit
exit:
  ret void
}}
"""


def driver(accesses: int, numbers: int, tail_bytes: int, parallel: bool) -> str:
    """Write the functions ``kernel(args, threads)`` and ``run``, which call ``row`` (see :func:`row`)."""
    run = _RUN.format(
        vector=f"<{accesses} x i64>",
        accesses=accesses,
        header=HEADER,
        step_at=HEADER + accesses,
        number_at=HEADER + 2 * accesses,
        size_at=HEADER + 2 * accesses + numbers,
        most_outer=MOST_OUTER,
        tail_bytes=max(tail_bytes, 1),
    )
    outside = _PARALLEL.format(grain=GRAIN, grain_less_one=GRAIN - 1) if parallel else _SERIAL
    return run + outside


def row(lanes: int, accesses: list[tuple[int, bool, bool, bool]]) -> str:
    """Write ``row(at, step, numbers, tail, n)``, which calls ``vectors(at, step, numbers, n)`` on multiples of ``lanes``.

    Parameters
    ----------
    accesses
        For each: bytes of an element, whether it moves along the row, whether it is loaded, whether stored.
    """
    count = len(accesses)
    before, after = [], []
    offset = 0
    for i, (size, moves, loaded, stored) in enumerate(accesses):
        before.append(f"""
  %at{i}.p = getelementptr i64, ptr %at, i64 {i}
  %at{i}.0 = load ptr, ptr %at{i}.p
  %step{i}.p = getelementptr i64, ptr %step, i64 {i}
  %step{i} = load i64, ptr %step{i}.p
  %by{i} = mul i64 %full, %step{i}
  %rest{i} = getelementptr i8, ptr %at{i}.0, i64 %by{i}
  %to{i} = getelementptr i64, ptr %tail.at, i64 {i}
  %by{i}.p = getelementptr i64, ptr %tail.step, i64 {i}
  store i64 {size if moves else 0}, ptr %by{i}.p""")
        if moves:
            before.append(f"""
  %buffer{i} = getelementptr i8, ptr %tail, i64 {offset}
  store ptr %buffer{i}, ptr %to{i}""")
            offset += size * lanes
            if loaded:
                before.append(
                    f"\n  call void @copy{8 * size}(ptr %buffer{i}, i64 {size}, ptr %rest{i}, i64 %step{i}, i64 %left)"
                )
            if stored:
                after.append(
                    f"\n  call void @copy{8 * size}(ptr %rest{i}, i64 %step{i}, ptr %buffer{i}, i64 {size}, i64 %left)"
                )
        else:
            before.append(f"\n  store ptr %at{i}.0, ptr %to{i}")
    copies = "".join(_COPY.format(bits=bits) for bits in sorted({8 * size for size, *_ in accesses}))
    return f"""{copies}
define internal void @row(ptr %at, ptr %step, ptr %numbers, ptr %tail, i64 %n) {{
  %tail.at = alloca [{count} x i64]
  %tail.step = alloca [{count} x i64]
  %full = and i64 %n, {-lanes}
  %left = sub i64 %n, %full
  %some = icmp ne i64 %full, 0
  br i1 %some, label %body, label %check
body:
  call void @vectors(ptr %at, ptr %step, ptr %numbers, i64 %full)
  br label %check
check:
  %uneven = icmp ne i64 %left, 0
  br i1 %uneven, label %rest, label %exit
rest:{"".join(before)}
  call void @vectors(ptr %tail.at, ptr %tail.step, ptr %numbers, i64 {lanes}){"".join(after)}
  br label %exit
exit:
  ret void
}}
"""
