"""The routine that finds the first of the greatest, or the least, elements of a row, and where it is."""

from __future__ import annotations

from torchy.codegen.cpu.routine import RoutineWriter


class Places(RoutineWriter):
    """Writes what ``max`` along a dimension and ``argmax`` compute: the first NaN, if there is one, else the first extreme.

    Which extreme there is, any order tells; the first element that equals it is looked for then.
    """

    parameters = "ptr %x, i64 %n, ptr %value, ptr %place"

    def __init__(self, element: str, least: bool) -> None:
        super().__init__(element)
        self.lanes = 512 // self._bits
        self.kind = f"<{self.lanes} x {element}>"
        self.better = "olt" if least else "ogt"
        # what every number is as good as
        self.worst = "0x7FF0000000000000" if least else "0xFFF0000000000000"

    def _vector(self, i: str) -> tuple[str, str]:
        """Load a vector, the last of which may be incomplete; return also the mask of what is there."""
        at = self._emit(f"mul i64 {i}, {self.lanes}")
        mask = self._lanes_below(self._emit(f"sub i64 %n, {at}"), self.lanes)
        pointer = self._emit(f"getelementptr {self.element}, ptr %x, i64 {at}")
        return self._load_masked(self.lanes, pointer, mask), mask

    def _choose(self, kind: str, a: str, b: str, better: str) -> str:
        first = self._emit(f"fcmp {better} {kind} {a}, {b}")
        truth = kind.replace(self.element, "i1")
        return self._emit(f"select {truth} {first}, {kind} {a}, {kind} {b}")

    def places(self, name: str) -> str:
        """Write the routine."""
        lanes, kind, element = self.lanes, self.kind, self.element
        truth = f"<{lanes} x i1>"
        one, worst = f"splat ({element} 1.0)", f"splat ({element} {self.worst})"
        more = self._emit(f"add i64 %n, {lanes - 1}")
        vectors = self._emit(f"udiv i64 {more}, {lanes}")

        def take(i: str, state: list[str]) -> list[str]:
            best, missing = state
            x, mask = self._vector(i)
            there = self._emit(f"select {truth} {mask}, {kind} {x}, {kind} {worst}")
            nan = self._emit(f"fcmp uno {kind} {there}, {there}")
            return [
                self._choose(kind, there, best, self.better),
                self._emit(f"select {truth} {nan}, {kind} {one}, {kind} {missing}"),
            ]

        best, missing = self._loop(
            "each", ("0", "entry"), vectors, kind, [worst, "zeroinitializer"], take
        )
        extreme = self._halved(best, lanes, lambda k, a, b: self._choose(k, a, b, self.better))
        some = self._halved(missing, lanes, lambda k, a, b: self._choose(k, a, b, "ogt"))
        nan = self._emit(f"fcmp ogt {element} {some}, 0.0")
        wanted = self._splat(element, extreme, lanes)
        self._write("  br label %scan", "scan:", "  %i = phi i64 [0, %each.end], [%i.next, %on]")
        x, mask = self._vector("%i")
        equal = self._emit(f"fcmp oeq {kind} {x}, {wanted}")
        unequal = self._emit(f"fcmp uno {kind} {x}, {x}")
        hits = self._emit(f"select i1 {nan}, {truth} {unequal}, {truth} {equal}")
        hits = self._emit(f"and {truth} {hits}, {mask}")
        bits = self._emit(f"bitcast {truth} {hits} to i{lanes}")
        self._write(f"  %found = icmp ne i{lanes} {bits}, 0")
        self._write("  br i1 %found, label %hit, label %on", "on:", "  %i.next = add i64 %i, 1")
        self._write("  br label %scan", "hit:")
        self.declarations.add(f"declare i{lanes} @llvm.cttz.i{lanes}(i{lanes}, i1)\n")
        lane = self._emit(f"call i{lanes} @llvm.cttz.i{lanes}(i{lanes} {bits}, i1 true)")
        wide = self._emit(f"zext i{lanes} {lane} to i64")
        begin = self._emit(f"mul i64 %i, {lanes}")
        place = self._emit(f"add i64 {begin}, {wide}")
        value = self._load(element, "%x", place)
        self._write(f"  store {element} {value}, ptr %value, align 1")
        self._write(f"  store i64 {place}, ptr %place, align 1", "  ret void")
        return self._function("void", name)
