"""The part of the driver that copies elements one by one, of a row or of several rows, from any strides to any others."""

from __future__ import annotations

from typing import Final

# of elements of any size
_OF_SIZE: Final = """
define internal void @NAME(PARAMETERS, i64 %size) {
  switch i64 %size, label %one [i64 2, label %two
                                i64 4, label %four
                                i64 8, label %eight]
one:
  call void @NAME8(PARAMETERS)
  ret void
two:
  call void @NAME16(PARAMETERS)
  ret void
four:
  call void @NAME32(PARAMETERS)
  ret void
eight:
  call void @NAME64(PARAMETERS)
  ret void
}
"""
# what a row, or rows, are copied with
_PARAMETERS: Final = {
    "copy": "ptr %to, i64 %to.step, ptr %from, i64 %from.step, i64 %n",
    "copy_rows": "ptr %to, i64 %to.row, i64 %to.step, ptr %from, i64 %from.row, i64 %from.step, i64 %n, i64 %rows",
}

_OF_BITS: Final = """
define internal void @copy_rowsBITS(ptr %to, i64 %to.row, i64 %to.step, ptr %from, i64 %from.row, i64 %from.step, i64 %n,
                                    i64 %rows) {
entry:
  br label %row
row:
  %j = phi i64 [0, %entry], [%j.next, %end]
  %to.begin = phi ptr [%to, %entry], [%to.begin.next, %end]
  %from.begin = phi ptr [%from, %entry], [%from.begin.next, %end]
  br label %loop
loop:
  %i = phi i64 [0, %row], [%i.next, %loop]
  %to.at = phi ptr [%to.begin, %row], [%to.next, %loop]
  %from.at = phi ptr [%from.begin, %row], [%from.next, %loop]
  %value = load iBITS, ptr %from.at, align 1
  store iBITS %value, ptr %to.at, align 1
  %to.next = getelementptr i8, ptr %to.at, i64 %to.step
  %from.next = getelementptr i8, ptr %from.at, i64 %from.step
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, %n
  br i1 %more, label %loop, label %end
end:
  %to.begin.next = getelementptr i8, ptr %to.begin, i64 %to.row
  %from.begin.next = getelementptr i8, ptr %from.begin, i64 %from.row
  %j.next = add i64 %j, 1
  %j.more = icmp ult i64 %j.next, %rows
  br i1 %j.more, label %row, label %exit
exit:
  ret void
}

define internal void @copyBITS(ptr %to, i64 %to.step, ptr %from, i64 %from.step, i64 %n) {
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%i.next, %loop]
  %to.at = phi ptr [%to, %entry], [%to.next, %loop]
  %from.at = phi ptr [%from, %entry], [%from.next, %loop]
  %value = load iBITS, ptr %from.at, align 1
  store iBITS %value, ptr %to.at, align 1
  %to.next = getelementptr i8, ptr %to.at, i64 %to.step
  %from.next = getelementptr i8, ptr %from.at, i64 %from.step
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, %n
  br i1 %more, label %loop, label %exit
exit:
  ret void
}
"""

COPIES: Final = "".join(
    _OF_SIZE.replace("PARAMETERS", parameters).replace("NAME", name)
    for name, parameters in _PARAMETERS.items()
) + "".join(_OF_BITS.replace("BITS", str(bits)) for bits in (8, 16, 32, 64))
