"""Places: these ops came before, in this pattern, since a flush at this line; sizes do not count."""

import itertools

import pytest
import torch
from recording import counters, did, forget_places_beyond, the_walker, turn

import torchy


def chain(x, y):
    z = x * y
    return (z + 1.5).sum(0), z


def test_what_comes_again_is_no_new_place():
    x, y = torch.randn(4, 4), torch.randn(4, 4)
    with torchy.lazy(compile="never") as session:
        done = [turn(session, lambda: chain(x, y)) for _ in range(5)]
    assert [d.places for d in done] == [3, 0, 0, 0, 0]
    assert [d.recorded for d in done] == [3] * 5


def test_sizes_make_no_place_but_layouts():
    with torchy.lazy(compile="never") as session:
        done = [
            turn(session, lambda n=n: chain(torch.randn(4, n), torch.randn(4, n)))
            for n in (2, 3, 4, 3)
        ]
    assert [d.places for d in done] == [3, 0, 0, 0]
    assert [d.layouts for d in done] == [3, 1, 1, 0]  # of the pointwise ones they are known


def test_a_layout_is_learned_for_all_places_of_a_signature():
    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        assert turn(session, lambda: x * 2.0).layouts == 1
        done = did(session, lambda: [x * 2.0, x * 2.0])
        assert (done.places, done.layouts) == (2, 0)


def test_another_pattern_makes_other_places_of_what_follows():
    square, row = torch.randn(4, 4), torch.randn(1, 4)
    with torchy.lazy(compile="never") as session:
        assert turn(session, lambda: chain(square, square)).places == 3
        assert turn(session, lambda: chain(square, torch.randn(4, 4))).places == 3  # two operands
        assert turn(session, lambda: chain(square, row)).places == 2  # the product is at its place
        assert turn(session, lambda: chain(square, row)).places == 0
        assert (
            turn(session, lambda: chain(square.t(), square.t())).places == 0
        )  # as dense as before
        assert turn(session, lambda: chain(torch.randn(8, 4)[::2], row)).places == 2


def test_another_dtype_number_or_constant_makes_other_places():
    x = torch.randn(4, 4)
    with torchy.lazy(compile="never") as session:
        turn(session, lambda: (x * 2.0).sum(0))
        assert turn(session, lambda: (x * 7.0).sum(0)).places == 0
        assert turn(session, lambda: (x * 2.0).sum(1)).places == 1
        assert turn(session, lambda: (x * 2).sum(0)).places == 2
        double = x.double()
        assert turn(session, lambda: (double * 2.0).sum(0)).places == 2


CHANGING = {  # numbers that choose neither formula nor legality
    "lerp": lambda x, k: torch.lerp(x, x.t(), k),
    "elu": lambda x, k: torch.nn.functional.elu(x, alpha=k),
    "a learning rate": lambda x, k: (x * 1.0).add_(x, alpha=-k),
    "addcdiv": lambda x, k: torch.addcdiv(x, x, x, value=k),
    "addmm": lambda x, k: torch.addmm(x, x, x, beta=k, alpha=2 * k),
    "baddbmm": lambda x, k: torch.baddbmm(x[None], x[None], x[None], beta=k),
    "addmv": lambda x, k: torch.addmv(x[0], x, x[0], alpha=k),
    "addr": lambda x, k: torch.addr(x, x[0], x[1], beta=k),
    "index_add": lambda x, k: torch.index_add(x, 0, torch.arange(4), x, alpha=k),
    "scatter": lambda x, k: torch.scatter(x, 0, torch.arange(4)[None], k),
    "pad": lambda x, k: torch.nn.functional.pad(x, (1, 2), value=k),
}


@pytest.mark.parametrize("name", CHANGING)
def test_a_number_that_changes_makes_no_new_place(name):
    x, made = torch.randn(4, 4), CHANGING[name]
    with torchy.lazy(compile="never") as session:
        turn(session, lambda: made(x, 2.0))
        turn(session, lambda: made(x, 3.0))
        done = [turn(session, lambda k=k: made(x, k)) for k in (0.0, -4.0, 5.5)]
    assert [d.places for d in done] == [0, 0, 0]
    assert [d.recorded for d in done] == [done[0].recorded] * 3 and done[0].recorded > 0


def test_which_operand_is_which_is_part_of_the_place():
    with torchy.lazy(compile="never") as session:
        x, y = torch.randn(4), torch.randn(4)
        turn(session, lambda: (x * 2.0) - (y * 2.0))
        assert turn(session, lambda: (y * 2.0) - (x * 2.0)).places == 0
        assert turn(session, lambda: (x * 2.0) - (x * 2.0)).places == 2

        def swapped():
            a, b = x * 2.0, y * 2.0
            return b - a

        assert turn(session, swapped).places == 1


def test_the_line_of_the_flush_before_is_part_of_the_place():
    x = torch.randn(4)

    def after_one(body):
        x.exp().sum().item()
        return did(session, body).places

    def after_another(body):
        x.neg().sum().item()
        return did(session, body).places

    with torchy.lazy(compile="never") as session:
        assert [after_one(lambda: x * 2.0) for _ in range(3)] == [1, 0, 0]
        assert [after_another(lambda: x * 2.0) for _ in range(3)] == [1, 0, 0]
        assert after_one(lambda: x * 3.0) == 0
        assert after_another(lambda: x * 3.0) == 0


def test_the_line_of_an_op_itself_is_not():
    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        turn(session, lambda: x * 2.0)
        assert turn(session, lambda: x * 2.0).places == 0


def test_the_default_dtype_is_part_of_the_place():
    x = torch.arange(4)
    with torchy.lazy(compile="never") as session:
        y = x / 2
        torch.set_default_dtype(torch.float64)
        z = x / 2
        assert counters(session)[2:6] == (2, 2, 2, 1)
        assert (y.dtype, z.dtype) == (torch.float32, torch.float64)


def test_a_change_of_what_results_depend_on_ends_the_trace():
    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        y = x.exp()
        assert did(session, lambda: torch.set_num_threads(3)).flushes == 0
        assert did(session, lambda: x.exp())[5] == 1
        assert did(session, lambda: x.exp())[5] == 0
        del y
    assert session.report.traces[0].reason == "process state changed"


def test_sessions_share_places():
    x = torch.randn(4, 4)
    done = []
    for _ in range(2):
        with torchy.lazy(compile="never") as session:
            done.append(did(session, lambda: chain(x, x)))
    assert [d.places for d in done] == [3, 0]


def test_places_are_forgotten_when_there_are_too_many_and_met_anew():
    x, walker = torch.randn(4, 4), the_walker()
    with torchy.lazy(compile="never") as session:
        turn(session, lambda: chain(x, x))
    assert walker.places() == 4
    forget_places_beyond(3)
    assert walker.places() == 4  # not before the next session
    with torchy.lazy(compile="never") as session:
        assert walker.places() == 0
        done = did(session, lambda: chain(x, x))
        assert (done.places, done.recorded, done.policy_calls) == (3, 3, 3)
        results = chain(x, x)
    for given, expected in zip(results, chain(x, x), strict=True):
        assert torch.equal(given, expected)


def test_places_are_forgotten_between_the_flushes_of_one_session():
    x, walker = torch.randn(4), the_walker()
    forget_places_beyond(10)
    known = []
    with torchy.lazy(compile="never") as session:
        for i in range(40):
            y = x * 2.0
            for _ in range(i % 8):
                y = y + 1.5
            assert torch.equal(y.sum(), y.sum())
            known.append(walker.places())
        assert counters(session).recorded > 200
        assert max(known) <= 10 and known.count(0) > 10
        assert len(session.report.traces) == counters(session).flushes  # all are told of


def test_places_are_kept_while_another_session_records():
    import threading

    x, walker = torch.randn(4), the_walker()
    begun, end = threading.Event(), threading.Event()

    def other():
        with torchy.lazy(compile="never"):
            y = x * 3.0
            begun.set()
            end.wait()
            y.sum().item()

    thread = threading.Thread(target=other)
    thread.start()
    begun.wait()
    forget_places_beyond(0)
    with torchy.lazy(compile="never"):
        (x * 2.0).sum().item()
    assert walker.places() > 0
    assert walker.library.torchy_forget(-1) == 0
    end.set()
    thread.join()
    with torchy.lazy(compile="never"):
        assert walker.places() == 0


def test_lines_count_as_places_eight_as_one():
    walker = the_walker()
    with torchy.lazy(compile="never"):
        pass
    before = walker.places()
    scope = {"line_here": walker.line_here}
    for number in range(80):  # each a code object and an instruction
        exec(compile("line_here()", f"cell {number}", "exec"), scope)
    assert walker.places() - before == 2 * 80 // 8
    assert walker.library.torchy_forget(-1) == 1
    assert walker.places() == 0


@pytest.mark.parametrize("look", ["tolist", "flush"])
def test_places_of_one_session_are_bounded_whatever_the_look(look):
    names = "sin cos exp tanh sqrt abs neg sigmoid".split()
    forget_places_beyond(40)
    x = torch.ones(6)
    with torchy.lazy():
        for chosen in itertools.permutations(names, 3):
            y = x
            for name in chosen:
                y = getattr(y, name)()
            y.tolist() if look == "tolist" else torchy.flush()
        assert the_walker().places() < 80
