"""Channel sorting: before the width becomes elastic, each block's hidden channels are ordered by importance.

Smaller networks keep the leading channels, so these should be the most important ones (once-for-all,
arXiv 1908.09791, section 3.3, "elastic width"). The largest network computes the same as before.

No block class is named here. What belongs to one set of hidden channels is found by comparing a slot's blocks and by
computing: dimensions of a block's parameters whose sizes are equal, and shrink, wherever one choice is smaller, and
which can be permuted together without changing what the block gives out. So a block's input and output channels stay
where they are, and so do channels tied to attention heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, product

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ofa.core.errors import SpaceError, TrainError
from ofa.space.search_space import SearchSpace
from ofa.supernet.block import Block, skeleton
from ofa.supernet.family import Family
from ofa.supernet.sharing import shared_buffers
from ofa.supernet.slot import Slot
from ofa.supernet.supernet import Supernet

Order = dict[str, dict[int, Tensor]]
"""By name of a parameter or buffer in `Supernet.network`, by dimension: the index of what comes to each place."""


_Dim = tuple[str, int]
"""Name of a parameter or buffer in a block, one of its dimensions."""


_Set = tuple[_Dim, ...]
"""Of hidden channels: all the dimensions that they are, to be permuted together."""


def channel_order(supernet: Supernet, trained: SearchSpace | None = None) -> Order:
    """The order of all hidden channels by importance, most important first; `permute` puts it into effect.

    A channel's importance is the sum of its absolute weights in the last parameter of the block that reads it. Where
    smaller networks were trained already, their channels stay theirs: the sizes that they have are borders, and order
    is made between borders only.

    Args:
        supernet: gives the weights; left as it is.
        trained: the space trained so far, a part of the family's; see `SearchSpace.keep_largest`. None: the largest
            network alone.

    Raises:
        TrainError: the family is one whole network, not of slots.
        SpaceError: `trained` is not a part of the family's space.
    """
    family = supernet.family
    if any(slot.path == "" for slot in family.slots):
        raise TrainError(
            f"the channels of family {family.name!r} cannot be sorted: it is one whole network, and sorting wants "
            "slots; train it without sorting, or write it as slots, as docs/examples/plain_cnn.py does"
        )
    if trained is not None:
        _check_part(trained, family)
    parameters = dict(supernet.network.named_parameters())
    sizes, found, order = _Sizes(), dict[_Compared, list[_Set]](), Order()
    for slot in family.slots:
        compared = _compared(family, slot)
        if compared not in found:
            found[compared] = list(_hidden_channels(compared, sizes))
        kept = [] if trained is None else [sizes[block] for block in _blocks(slot, trained)]
        for dims in found[compared]:
            reader = [dim for dim in dims if dim[1] == 1][-1]
            weight = parameters[f"{slot.path}.{reader[0]}"].detach()
            importance = weight.abs().transpose(0, 1).flatten(1).sum(1)
            borders = {0, len(importance)} | {block[reader] for block in kept if reader in block}
            index = _descending(importance, sorted(borders))
            for name, dim in dims:
                order.setdefault(f"{slot.path}.{name}", {})[dim] = index
    return order


def permute(tensors: Mapping[str, Tensor], order: Order) -> None:
    """Puts an order into effect in place, so that views stay valid.

    Args:
        tensors: by their names in `Supernet.network`: its state, an average of it, or an optimizer's tensors of the
            parameters' shapes. Names that are missing in either are passed over.
        order: from `channel_order`.
    """
    with torch.no_grad():
        for name in order.keys() & tensors.keys():
            for dim, index in order[name].items():
                tensors[name].copy_(tensors[name].index_select(dim, index.to(tensors[name].device)))


def _check_part(trained: SearchSpace, family: Family) -> None:
    choices = zip(trained.choices, family.space.choices, strict=False)
    if trained.names != family.space.names or any(not set(some.values) <= set(whole.values) for some, whole in choices):
        raise SpaceError(
            f"trained = {trained} is not a part of the space of family {family.name!r}, {family.space}; give what its "
            "keep_largest returned, or None"
        )


def _descending(importance: Tensor, borders: list[int]) -> Tensor:
    """Indices `[n]` that sort within the segments between borders; equal ones stay as they are."""
    segments = pairwise(borders)
    return torch.cat([a + importance[a:b].argsort(descending=True, stable=True) for a, b in segments])


def _blocks(slot: Slot, space: SearchSpace) -> Iterator[Block]:
    """The blocks of a slot in a space, some more than once."""
    for values in product(*(space.choices[space.column(name)].values for name in slot.choices)):
        block = slot.block(*values)
        if block is not None:
            yield block


@dataclass(frozen=True)
class _Compared:
    """The blocks of a slot that tell which channels are hidden.

    Attributes:
        largest: the slot's largest block.
        smaller: those in which one choice is smaller.
        size: height and width of the largest one's input.
    """

    largest: Block
    smaller: tuple[Block, ...]
    size: int


def _compared(family: Family, slot: Slot) -> _Compared:
    choices = [family.space.choices[family.space.column(name)] for name in slot.choices]
    values = [choice.values[-1] for choice in choices]
    rows = [[*values[:i], value, *values[i + 1 :]] for i, choice in enumerate(choices) for value in choice.values[:-1]]
    largest, *smaller = (slot.block(*row) for row in (values, *rows))
    assert largest is not None  # see Family
    resolution = (max if "resolution" in slot.choices else min)(family.resolutions)
    others = (block for block in smaller if block is not None and block != largest)
    return _Compared(largest, tuple(dict.fromkeys(others)), slot.size(resolution))


class _Sizes(dict[Block, dict[_Dim, int]]):
    """For each block that is asked for, the sizes of all that networks share.

    Parameters and buffers are in the order of the module, a weight's input channels, dimension 1, before its outputs.
    """

    def __missing__(self, block: Block) -> dict[_Dim, int]:
        module = skeleton(block.build)
        shared = _shared(module)
        tensors = {name: shared[name] for name in module.state_dict() if name in shared}
        dims = [(name, dim) for name, tensor in tensors.items() for dim in reversed(range(tensor.dim()))]
        self[block] = {(name, dim): tensors[name].shape[dim] for name, dim in dims}
        return self[block]


def _hidden_channels(compared: _Compared, sizes: _Sizes) -> Iterator[_Set]:
    """The sets of hidden channels of a slot's largest block."""
    full, *others = (sizes[block] for block in (compared.largest, *compared.smaller))
    alike: dict[tuple[int | None, ...], list[_Dim]] = {}
    for dim, size in full.items():
        alike.setdefault((size, *(other.get(dim) for other in others)), []).append(dim)
    shrinking = [tuple(dims) for key, dims in alike.items() if len(set(key)) > 1 and any(dim == 1 for _, dim in dims)]
    if not shrinking:
        return
    probe = _Probe(compared.largest, compared.size)
    for dims in shrinking:
        sets = list(_split(dims, probe))
        if sets and not any(probe.is_free((dim,)) for dim in dims):  # what the largest block ignores, another may use
            yield from sets


def _split(dims: _Set, probe: _Probe) -> Iterator[_Set]:
    """Divides dimensions of one size into sets of channels, each free to be permuted; what is not free is left out.

    A set reaches from what makes the channels to what reads them, dimension 1 of a weight, so the shortest free runs
    in the order of the module are sets. What a module has in another order is a longer run, or what remains.
    """
    rest, start = list(dims), 0
    while start < len(dims):
        ends = [end for end in range(start + 1, len(dims) + 1) if dims[start][1] == 0 and dims[end - 1][1] == 1]
        end = next((end for end in ends if probe.is_free(dims[start:end])), None)
        if end is not None:
            yield dims[start:end]
            rest = [dim for dim in rest if dim not in dims[start:end]]
        start = end or start + 1
    if any(dim == 1 for _, dim in rest) and probe.is_free(tuple(rest)):
        yield tuple(rest)


def _shared(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers that networks share, each once."""
    return dict(module.named_parameters()) | dict(shared_buffers(module))


class _Probe:
    """A block with random weights and statistics in double precision, and what it makes of random input.

    Args:
        block: to build.
        size: height and width of its input.
    """

    def __init__(self, block: Block, size: int) -> None:
        with torch.random.fork_rng(devices=[]):
            self.module = block.build().double().eval()
        generator = torch.Generator().manual_seed(0)
        self.tensors = {name: tensor.detach() for name, tensor in _shared(self.module).items() if tensor.dim()}
        for tensor in self.tensors.values():
            if tensor.dim() > 1:
                tensor.normal_(0, (len(tensor) / tensor.numel()) ** 0.5, generator=generator)
            else:
                tensor.uniform_(0.5, 1.5, generator=generator)
        self.input = torch.randn(1, *block.input_shape(size), generator=generator, dtype=torch.float64)
        self.output = self.compute(self.tensors)

    def compute(self, tensors: dict[str, Tensor]) -> Tensor:
        """What the block gives out with these tensors in the place of its own."""
        with torch.no_grad():
            output: Tensor = functional_call(self.module, tensors, (self.input.clone(),))  # some work in place
        return output

    def is_free(self, dims: _Set) -> bool:
        """Whether every permutation of these dimensions together leaves the output as it is.

        All permutations follow from two: to move each channel by one place, and to swap the first two.
        """
        length = self.tensors[dims[0][0]].shape[dims[0][1]]
        moved = torch.arange(length).roll(1)
        swapped = torch.tensor([1, 0, *range(2, length)])
        return all(self._keeps_output(dims, index) for index in (moved, swapped))

    def _keeps_output(self, dims: _Set, index: Tensor) -> bool:
        order: Order = {}
        for name, dim in dims:
            order.setdefault(name, {})[dim] = index
        tensors = self.tensors | {name: self.tensors[name].clone() for name in order}
        permute(tensors, order)
        tolerance = 1e-9 * float(self.output.abs().max())
        return torch.allclose(self.compute(tensors), self.output, rtol=0, atol=tolerance)
