"""Tests of gradients that several processes average in buckets."""

from itertools import pairwise

import pytest
import torch
from torch import distributed as dist

import ofa
from ofa.core.distributed import rank
from ofa.train.config import TrainConfig
from ofa.train.gradient_buckets import GradientBuckets
from ofa.train.step import TrainingStep
from tests.families import FAMILIES

BUCKET_VALUES = 4000


@pytest.fixture
def supernet():
    return a_supernet()


def a_supernet():
    options = {"num_classes": 10, "in_channels": 1, "resolutions": [16], "width_mult": 0.5}
    return ofa.Supernet(ofa.create_family("small_mobilenet_v3", **options), seed=0)


def a_batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 1, 16, 16, generator=generator), torch.randint(10, (8,), generator=generator)


def test_buckets_hold_every_parameter_from_the_last_to_the_first(supernet):
    buckets = GradientBuckets(supernet.parameters(), BUCKET_VALUES)._buckets
    assert [p for bucket in buckets for p in bucket] == list(reversed(list(supernet.parameters())))
    for bucket, following in pairwise(buckets):
        assert sum(p.numel() for p in bucket) <= BUCKET_VALUES or len(bucket) == 1
        assert sum(p.numel() for p in bucket) + following[0].numel() > BUCKET_VALUES


def test_frozen_parameters_have_no_gradient_to_average(supernet):
    first = next(supernet.parameters()).requires_grad_(False)
    assert all(p is not first for bucket in GradientBuckets(supernet.parameters())._buckets for p in bucket)


def test_a_single_process_keeps_its_gradients_and_does_not_look_at_other_tensors(supernet):
    buckets = GradientBuckets(supernet.parameters(), BUCKET_VALUES)
    buckets.start(supernet.subnet(supernet.family.space.smallest))
    buckets.finish(iter_that_fails())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_subnets_parameters_are_all_that_its_backward_pass_adds_to(name):
    """Buckets of other parameters are averaged before it, so whatever a sharing rule computes must be among them."""
    family = ofa.create_family(name)
    supernet, arch = ofa.Supernet(family, seed=0), family.space.smallest
    subnet = supernet.subnet(arch)
    parts = {parameter.grad.untyped_storage().data_ptr() for parameter in subnet.parameters()}
    generator = torch.Generator().manual_seed(0)
    subnet(torch.randn(2, *family.input_shape(arch), generator=generator)).square().sum().backward()
    added = {n for n, p in supernet.named_parameters() if p.grad.any()}
    assert len(added) > 10
    assert added <= {n for n, p in supernet.named_parameters() if p.grad.untyped_storage().data_ptr() in parts}


def iter_that_fails():
    raise AssertionError("read")
    yield


def of_each_rank():
    """Trains other archs in each process, twice; compares with all-reduces of whole gradients after the step."""
    supernet = a_supernet()
    settings = TrainConfig(phases=[{"strategy": "full", "epochs": 1}], teacher="none", channels_last=False)
    step, space = TrainingStep(supernet, settings, 10), supernet.family.space
    buckets = GradientBuckets(supernet.parameters(), BUCKET_VALUES)
    archs = [space.smallest, space.largest] if rank() else [space.largest, space.smallest]
    found = []
    for number in range(2):
        supernet.zero_grad()
        step.accumulate_gradients(archs, *a_batch(10 * number + rank()), before_last=buckets.start)
        started, others = len(buckets._started), [torch.full((2, 3), float(rank())).t(), torch.tensor([10.0 * rank()])]
        expected = [p.grad.clone() for p in supernet.parameters()]
        for gradient in expected:
            dist.all_reduce(gradient)
        buckets.finish(others)
        equal = all(
            torch.equal(p.grad, gradient / 2) for p, gradient in zip(supernet.parameters(), expected, strict=True)
        )
        changed = any(float(p.grad.abs().max()) > 0 for p in supernet.parameters())
        found.append([equal and changed, started, len(buckets._buckets), *(other.tolist() for other in others)])
    return found


def test_two_processes_average_each_bucket_during_the_last_backward_pass(together):
    for of_a_rank in together(2, of_each_rank):
        for equal, started, n_buckets, weight, bias in of_a_rank:
            assert equal
            assert started == n_buckets > 5
            assert weight == [[0.5] * 2] * 3
            assert bias == [5.0]
