"""The channel groups that blocks declare, found a second time by permuting tensors and looking at the output."""

import pytest
import torch
from torch.func import functional_call

import ofa
from ofa.supernet.block import channel_groups, skeleton
from ofa.supernet.sharing import shared_buffers
from tests.families import FAMILIES


def shared_tensors(module):
    """Return parameters and BatchNorm statistics by name, in the order of the state dict."""
    tensors = dict(module.named_parameters()) | dict(shared_buffers(module))
    return {name: tensors[name].detach() for name in module.state_dict() if name in tensors and tensors[name].dim()}


class Trial:
    """A block with random weights and statistics in double precision, and its output for a random input."""

    def __init__(self, block, size):
        with torch.random.fork_rng(devices=[]):
            self.module = block.build().double().eval()
        generator = torch.Generator().manual_seed(0)
        self.tensors = shared_tensors(self.module)
        for tensor in self.tensors.values():
            if tensor.dim() > 1:
                tensor.normal_(0, (len(tensor) / tensor.numel()) ** 0.5, generator=generator)
            else:
                tensor.uniform_(0.5, 1.5, generator=generator)
        self.input = torch.randn(1, *block.input_shape(size), generator=generator, dtype=torch.float64)
        self.output = self.compute({})

    def compute(self, tensors):
        with torch.no_grad():
            return functional_call(self.module, self.tensors | tensors, (self.input.clone(),))

    def is_free(self, entries):
        """Return whether the entries can be permuted together; a rotation and a swap generate all permutations."""
        n = self.tensors[entries[0][0]].shape[entries[0][1]]
        return all(self.keeps_output(entries, index) for index in (torch.arange(n).roll(1), [1, 0, *range(2, n)]))

    def keeps_output(self, entries, index):
        permuted = {}
        for name, dim in entries:
            tensor = permuted.get(name, self.tensors[name])
            permuted[name] = tensor.index_select(dim, torch.as_tensor(index))
        return torch.allclose(self.compute(permuted), self.output, rtol=0, atol=1e-9 * float(self.output.abs().max()))


def entry_sizes(block):
    """Return the size of every dimension of every shared tensor; a weight's input channels come first."""
    tensors = shared_tensors(skeleton(block.build))
    return {(name, dim): t.shape[dim] for name, t in tensors.items() for dim in reversed(range(t.dim()))}


def elastic_entries(largest, smaller):
    """Yield lists of entries whose sizes agree in the largest block and in each smaller one, but not between them."""
    sizes, *others = map(entry_sizes, (largest, *smaller))
    alike = {}
    for entry, size in sizes.items():
        alike.setdefault((size, *(other.get(entry) for other in others)), []).append(entry)
    for key, entries in alike.items():
        if len(set(key)) > 1:
            yield entries


def free_runs(entries, trial):
    """Yield the shortest runs of entries from an output to an input dimension that can be permuted together."""
    start = 0
    while start < len(entries):
        ends = [
            end for end in range(start + 1, len(entries) + 1) if entries[start][1] == 0 and entries[end - 1][1] == 1
        ]
        end = next((end for end in ends if trial.is_free(entries[start:end])), None)
        if end is not None:
            yield entries[start:end]
        start = end or start + 1


def slot_blocks(family, slot):
    """Return the largest block of a slot, and those with a single choice smaller."""
    choices = [family.space.choices[family.space.column(name)] for name in slot.choices]
    values = [choice.values[-1] for choice in choices]
    rows = [[*values[:i], value, *values[i + 1 :]] for i, choice in enumerate(choices) for value in choice.values[:-1]]
    largest, *smaller = (slot.block(*row) for row in (values, *rows))
    return largest, tuple(dict.fromkeys(block for block in smaller if block not in (None, largest)))


@pytest.fixture(scope="module", params=FAMILIES)
def trials(request):
    """For each distinct slot: the largest block, smaller ones, and a trial of the largest."""
    family = ofa.create_family(request.param, num_classes=10, resolutions=(32, 48))
    slots = {slot_blocks(family, slot): slot for slot in family.slots}
    return [(*blocks, Trial(blocks[0], slot.size(32))) for blocks, slot in slots.items()]


def test_each_declared_group_can_be_permuted_and_no_part_of_it_alone(trials):
    generator = torch.Generator().manual_seed(1)
    n_groups = 0
    for largest, _, trial in trials:
        for group in channel_groups(largest):
            n_groups += 1
            name, dim = group[-1]
            index = torch.randperm(trial.tensors[name].shape[dim], generator=generator)
            assert trial.keeps_output(group, index), (largest, group)
            for left_out in group:
                rest = [entry for entry in group if entry != left_out]
                assert not trial.keeps_output(rest, index), (largest, left_out)
    assert n_groups


def test_the_trial_finds_no_elastic_group_that_is_not_declared(trials):
    n_runs = 0
    for largest, smaller, trial in trials:
        declared = set(map(frozenset, channel_groups(largest)))
        for entries in elastic_entries(largest, smaller):
            for run in free_runs(entries, trial):
                n_runs += 1
                assert frozenset(run) in declared, (largest, run)
    assert n_runs


def test_all_blocks_of_a_slot_declare_the_same_groups(trials):
    for largest, smaller, _ in trials:
        assert {channel_groups(block) for block in smaller} <= {channel_groups(largest)}
