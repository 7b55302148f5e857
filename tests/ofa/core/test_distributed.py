import pytest
import torch

from ofa.core import distributed


def test_a_single_process_is_alone():
    with distributed.joined():
        assert (distributed.rank(), distributed.world_size()) == (0, 1)
        distributed.barrier()
        shared = distributed.share_out(lambda items: {n: (2.0 * n, 1.0) for n in items}, [1, 2, 3, 1], 2)
        assert shared == {1: (2.0, 1.0), 2: (4.0, 1.0), 3: (6.0, 1.0)}


def of_each_rank():
    """What one of several processes sees."""
    calls = []
    shared = distributed.share_out(lambda some: calls.extend(some) or {n: (n**2, -n) for n in some}, [1, 2, 3, 4, 5], 2)
    distributed.barrier()
    return {
        "world": distributed.world_size(),
        "shared": [*shared.items()],
        "calls": calls,
        "mean": distributed.mean(torch.tensor([1.0, 10.0 * distributed.rank()])).tolist(),
    }


@pytest.mark.parametrize("n", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_processes_agree(together, n):
    found = together(n, of_each_rank)
    for rank, seen in enumerate(found):
        assert seen["world"] == n
        assert seen["shared"] == [[n, [float(n**2), float(-n)]] for n in (1, 2, 3, 4, 5)]
        assert seen["calls"] == [1, 2, 3, 4, 5][rank::n]
        assert seen["mean"] == [1.0, 5.0 * (n - 1)]
