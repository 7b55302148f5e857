"""Channel sorting: order hidden channels by importance before the width becomes elastic.

Smaller networks keep the leading channels, so these should be the most important ones (once-for-all,
arXiv 1908.09791, section 3.3). The largest network computes the same as before.
"""

from collections.abc import Mapping
from itertools import pairwise, product

import torch
from torch import Tensor

from ofa.core.errors import FamilyError, SpaceError, TrainError
from ofa.space.search_space import SearchSpace
from ofa.supernet.block import Block, ChannelGroup, channel_groups, skeleton
from ofa.supernet.family import Family
from ofa.supernet.slot import Slot
from ofa.supernet.supernet import Supernet

Order = dict[str, dict[int, Tensor]]
"""By name in `Supernet.network` and by dimension: for each place, the index of the entry that moves there."""


def channel_order(supernet: Supernet, trained: SearchSpace | None = None) -> Order:
    """Return the order of all elastic channel groups, most important channel first, for `permute`.

    A channel's importance is the L1 norm of its weights in the last layer that consumes it. A group is elastic if its
    size differs among the blocks of a slot. The channels of trained subnets stay theirs: the sizes that a group has in
    them are borders, and channels are sorted between borders only.

    Args:
        supernet: gives the weights; it is not changed.
        trained: the subspace trained so far, see `SearchSpace.keep_largest`; None for the largest network alone.

    Raises:
        TrainError: the family's blocks declare no channel groups.
        FamilyError: a block declares a channel group that it does not have.
        SpaceError: `trained` is not a subspace of the family's space.
    """
    family, weights, order = supernet.family, supernet.network.state_dict(), Order()
    if trained is not None:
        _check_subspace(trained, family)
    largest_blocks = family.blocks(family.space.row(family.space.largest))
    declaring = [(slot, block) for slot, block in largest_blocks if block is not None and channel_groups(block)]
    if not declaring:
        raise TrainError(
            f"the channels of family {family.name!r} cannot be sorted: its blocks declare no channel groups; train it "
            "without sort_channels, or give its blocks a method channel_groups() as docs/families.md says"
        )
    sizes: dict[Block, dict[ChannelGroup, int]] = {}
    for slot, largest in declaring:
        blocks = _blocks(slot, family.space)
        trained_blocks = [] if trained is None else _blocks(slot, trained)
        for block in {blocks[0], largest, *trained_blocks} - sizes.keys():
            sizes[block] = _group_sizes(block)
        for group in channel_groups(largest):
            shared = all(group in channel_groups(block) for block in blocks)
            if not shared or sizes[blocks[0]][group] == sizes[largest][group]:
                continue
            consumer, dim = group[-1]
            importance = weights[f"{slot.path}.{consumer}"].abs().movedim(dim, 0).flatten(1).sum(1)
            borders = {0, sizes[largest][group]} | {sizes[block][group] for block in trained_blocks}
            segments = pairwise(sorted(borders))  # equal channels keep their order
            index = torch.cat([a + importance[a:b].argsort(descending=True, stable=True) for a, b in segments])
            for name, dim in group:
                order.setdefault(f"{slot.path}.{name}", {})[dim] = index
    return order


def permute(tensors: Mapping[str, Tensor], order: Order) -> None:
    """Permute tensors in place, so that views of them stay valid.

    They are a state dict of `Supernet.network`, an average of it, or an optimizer's moments under the same names. Names
    that only one of the arguments has are skipped.
    """
    with torch.no_grad():
        for name in order.keys() & tensors.keys():
            for dim, index in order[name].items():
                tensors[name].copy_(tensors[name].index_select(dim, index.to(tensors[name].device)))


def _check_subspace(trained: SearchSpace, family: Family) -> None:
    pairs = zip(trained.choices, family.space.choices, strict=False)
    if trained.names != family.space.names or any(not set(part.values) <= set(full.values) for part, full in pairs):
        raise SpaceError(
            f"trained = {trained} is not a subspace of the space of family {family.name!r}, {family.space}; give what "
            "its keep_largest returned, or None"
        )


def _blocks(slot: Slot, space: SearchSpace) -> list[Block]:
    """Return the blocks of a slot in a space, the smallest first; some come repeatedly."""
    values = product(*(space.choices[space.column(name)].values for name in slot.choices))
    return [block for block in (slot.block(*combination) for combination in values) if block is not None]


def _group_sizes(block: Block) -> dict[ChannelGroup, int]:
    """Return the number of channels of each group that a block declares."""
    shapes = {name: tensor.shape for name, tensor in skeleton(block.build).state_dict().items()}
    sizes = {}
    for group in channel_groups(block):
        try:
            (sizes[group],) = {shapes[name][dim] for name, dim in group}
        except (KeyError, IndexError, ValueError) as error:
            raise FamilyError(
                f"{block} does not have the channel group {group} that it declares; each entry must be a name of its "
                "state dict and a dimension, all of one size"
            ) from error
    return sizes
