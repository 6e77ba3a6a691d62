"""Memory for large tensors: blocks that are dropped are kept for the next ones, within bounds."""

import os

import pytest
import torch
from recording import the_walker

import torchy

MIB = 1 << 20


def block(mib):
    """Make a tensor of so many MiB, eagerly."""
    return torch.empty(mib * MIB, dtype=torch.uint8)


def with_pool():
    with torchy.lazy():
        pass


def test_there_is_no_pool_before_a_session_wants_one():
    block(16)
    assert torchy.release_memory() == 0
    with torchy.lazy(memory_pool=False):
        block(16)
    assert torchy.release_memory() == 0
    with_pool()
    block(16)
    assert torchy.release_memory() == 16 * MIB
    with torchy.lazy(memory_pool=False):  # it stays
        block(16)
        assert torchy.release_memory() == 16 * MIB


def test_what_is_kept_is_given_back_once():
    with_pool()
    x = block(4)
    assert torchy.release_memory() == 0  # in use
    del x
    assert torchy.release_memory() == 4 * MIB
    assert torchy.release_memory() == 0


def test_small_blocks_are_not_kept():
    with_pool()
    torch.empty(MIB - 1, dtype=torch.uint8)
    assert torchy.release_memory() == 0
    torch.empty(MIB, dtype=torch.uint8)
    assert torchy.release_memory() == MIB


def test_a_block_serves_the_next_tensor():
    with_pool()
    x = block(4)
    address = x.data_ptr()
    assert address % (2 * MIB) == 0
    del x
    y = block(4)
    assert y.data_ptr() == address
    assert torchy.release_memory() == 0
    z = block(4)
    assert z.data_ptr() != address


def test_of_blocks_that_fit_the_one_dropped_last_comes_first():
    with_pool()
    blocks = [block(2) for _ in range(3)]
    addresses = [x.data_ptr() for x in blocks]
    for index in (1, 0, 2):
        blocks[index] = None
    again = [block(2).data_ptr() for _ in range(2)]  # each is dropped at once
    assert again == [addresses[2]] * 2
    kept = [block(2) for _ in range(3)]
    assert [x.data_ptr() for x in kept] == [addresses[index] for index in (2, 0, 1)]


@pytest.mark.parametrize(("asked", "reused"), [(16, True), (15, True), (14, False), (17, False)])
def test_a_block_may_be_an_eighth_larger_than_what_is_asked_for(asked, reused):
    with_pool()
    x = block(16)
    address = x.data_ptr()
    del x
    y = block(asked)
    assert (y.data_ptr() == address) == reused


def test_what_is_kept_is_bounded_by_what_the_program_had_in_use():
    with_pool()
    block(32)
    x = block(20)  # 12 MiB are left of what was in use at most: the large block is too much
    assert torchy.release_memory() == 0
    del x
    block(12)
    assert torchy.release_memory() == (20 + 12) * MIB  # both together are no more than 32 MiB


def test_eight_mebibytes_may_always_be_kept():
    with_pool()
    x = block(20)
    block(7)
    x = [x, block(20)]  # all that was in use is in use again
    assert torchy.release_memory() == 7 * MIB
    del x


def test_a_session_that_ends_gives_back_what_it_did_not_use():
    with_pool()
    block(16)
    with torchy.lazy():
        pass
    assert torchy.release_memory() == 0
    block(16)
    with torchy.lazy():
        block(16)
    assert torchy.release_memory() == 16 * MIB


def test_the_last_of_several_sessions_gives_back():
    with_pool()
    walker = the_walker()
    block(16)
    sessions = [walker.open(10**6 + i, 0, 1024, 16 * MIB, True, False, -1) for i in range(2)]
    assert walker.close(sessions[0]) == 1
    block(16)  # since then
    assert walker.close(sessions[1]) == 1
    assert torchy.release_memory() == 16 * MIB


def test_results_of_flushes_come_from_the_pool():
    x = torch.zeros(4 * MIB)  # from before there is a pool
    with torchy.lazy(compile="never"):
        y = x + 1
        torchy.flush()
        address = y.data_ptr()
        assert address % (2 * MIB) == 0
        del y
        z = x - 1
        torchy.flush()
        assert z.data_ptr() == address
    assert z[0].item() == -1
    del x  # goes back to where it is from
    assert torchy.release_memory() == 0
    del z
    assert torchy.release_memory() == 16 * MIB


def test_a_temporary_of_a_flush_is_reused_within_it():
    with torchy.lazy(compile="never", max_bytes=2**40):
        x = torch.ones(4 * MIB)
        for _ in range(6):
            x = x + 1
        torchy.flush()
        assert torchy.release_memory() == 16 * MIB  # two took turns, and one has the result
        assert x[-1].item() == 7


def test_storages_may_grow_and_shrink():
    with_pool()
    x = torch.arange(float(MIB))
    x.resize_(3 * MIB)
    assert x[:4].tolist() == [0, 1, 2, 3] and x[MIB - 1].item() == MIB - 1
    assert torchy.release_memory() == 4 * MIB
    x.untyped_storage().resize_(16)
    assert torchy.release_memory() == 12 * MIB


def test_a_child_keeps_nothing_and_the_parent_what_it_had():
    with_pool()
    used = block(2)
    used[0] = 7
    block(16)
    child = os.fork()
    if child == 0:
        wrong = torchy.release_memory() != 0 or used[0].item() != 7
        del used
        wrong = wrong or torchy.release_memory() != 2 * MIB
        block(4)
        os._exit(1 if wrong or torchy.release_memory() != 4 * MIB else 0)
    assert os.waitpid(child, 0)[1] == 0
    assert torchy.release_memory() == 16 * MIB


def test_what_cannot_be_had_is_told_as_torch_tells_it():
    with_pool()
    block(16)
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator: can't allocate memory"):
        torch.empty(2**60, dtype=torch.uint8)
    assert torchy.release_memory() == 0  # it was given back, for that it might help
