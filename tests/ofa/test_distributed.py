import pytest
import torch

from ofa import distributed


def test_a_single_process_is_alone():
    with distributed.joined():
        assert (distributed.rank(), distributed.world_size()) == (0, 1)
        distributed.wait_for_all()
        tensor = torch.tensor([1.0, 2.0])
        distributed.average_([tensor])
        assert tensor.tolist() == [1.0, 2.0]
        assert distributed.share_out(lambda item: 2.0 * item, [1, 2, 3]) == [2.0, 4.0, 6.0]
        assert distributed.sum_up([1.0, 2.0]) == [1.0, 2.0]


def of_each_rank():
    """What one of several processes sees."""
    rank = distributed.rank()
    weight = torch.full((2, 3), float(rank)).t()  # not contiguous
    bias = torch.tensor([10.0 * rank])
    distributed.average_([weight, bias])
    calls = []
    shared = distributed.share_out(lambda item: calls.append(item) or item**2, [1, 2, 3, 4, 5])
    distributed.wait_for_all()
    return {
        "world": distributed.world_size(),
        "weight": weight.tolist(),
        "bias": bias.tolist(),
        "shared": shared,
        "calls": calls,
        "sum": distributed.sum_up([float(rank), 1.0]),
    }


@pytest.mark.parametrize("n", [2, 3])
def test_several_processes_agree(together, n):
    found = together(n, of_each_rank)
    mean = sum(range(n)) / n
    for rank, seen in enumerate(found):
        assert seen["world"] == n
        assert seen["weight"] == [[pytest.approx(mean)] * 2] * 3
        assert seen["bias"] == [pytest.approx(10 * mean)]
        assert seen["shared"] == [1.0, 4.0, 9.0, 16.0, 25.0]
        assert seen["calls"] == [1, 2, 3, 4, 5][rank::n]
        assert seen["sum"] == [sum(range(n)), n]
