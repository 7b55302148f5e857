"""Families: a list of slots, the space they span, and how they become a network.

Families reach the engine through the entry-point group `ofa.supernets`, or as a path to a Python file;
either way a family is a function `family(num_classes, in_channels, ...) -> Family`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from torch import nn

from ofa.core.errors import FamilyError, SpaceError
from ofa.space.arch import Arch, Rows, Value
from ofa.space.choice import Choice
from ofa.space.search_space import SearchSpace
from ofa.supernet.block import Block, skeleton
from ofa.supernet.rules import Rule
from ofa.supernet.sharing import add_extras, share
from ofa.supernet.slot import Slot


@dataclass(frozen=True, eq=False)
class Family:
    """A search space and the slots that turn an arch of it into a network.

    Attributes:
        name: as registered.
        space: its choices; every family has the choice `resolution`.
        slots: in the order in which data flows through them.
        in_channels: of the images.
        rules: how parameters are shared that are not plain slices, by patterns over their names; see
        `ofa.supernet.rules`.
        resolution_multiple: what resolutions must be multiples of, such as a patch size.
        classifiers: paths of the layers whose outputs are the classes, such as `head.classifier`.
        options: what `ofa.family` made it with, defaults included, so that it can be made again.
    """

    name: str
    space: SearchSpace
    slots: tuple[Slot, ...]
    in_channels: int = 3
    rules: Mapping[str, Rule] = field(default_factory=dict)
    resolution_multiple: int = 1
    classifiers: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for resolution in self.resolutions:
            if resolution < 1 or resolution % self.resolution_multiple:
                raise FamilyError(
                    f"family {self.name!r}: resolution {resolution} is not allowed; give multiples of "
                    f"{self.resolution_multiple} pixels"
                )
        paths = [slot.path for slot in self.slots]
        if len(set(paths)) < len(paths):
            raise FamilyError(f"family {self.name!r} has two slots with one path: {sorted(paths)}")
        for slot in self.slots:
            for name in slot.choices:
                self.space.column(name)
        skipped = [slot.path for slot, block in self.blocks(self.space.encode(self.space.largest)) if block is None]
        if skipped:
            raise FamilyError(f"family {self.name!r}: the largest network skips {skipped}; it must contain every slot")

    @property
    def is_whole(self) -> bool:
        """Whether each network is a single block, as with `from_builder`."""
        return [slot.path for slot in self.slots] == [""]

    @classmethod
    def from_builder(
        cls,
        space: SearchSpace,
        build: Callable[[Arch], nn.Module],
        *,
        name: str = "custom",
        resolution: int = 224,
        in_channels: int = 3,
        rules: Mapping[str, Rule] | None = None,
        resolution_multiple: int = 1,
        classifiers: Sequence[str] = (),
    ) -> Family:
        """A family out of any function that builds a network; weights are shared by parameter name.

        The network is one slot, so its costs are those of whole networks.

        Args:
            space: its choices; the network of the last values must hold all parameters of every other.
            build: from an arch to a network that takes images `[batch, in_channels, resolution, resolution]`.
            name: of the family.
            resolution: of the images, if the space has no choice `resolution`.
            in_channels: of the images.
            rules: how parameters are shared that are not plain slices, by patterns over their names; the first that
                fits holds, see `ofa.supernet.rules`.
            resolution_multiple: what resolutions must be multiples of, such as a patch size.
            classifiers: paths of the layers whose outputs are the classes.

        Raises:
            FamilyError: the smallest network's parameters are not parts of the largest's; names one with both shapes.
        """
        if "resolution" not in space.names:
            space = SearchSpace([Choice("resolution", (resolution,)), *space.choices])

        def block(*values: Value) -> Block:
            return _Whole(build, space.arch(dict(zip(space.names, values, strict=True))), in_channels)

        slots = (Slot("", block, space.names),)
        family = cls(name, space, slots, in_channels, rules or {}, resolution_multiple, tuple(classifiers))
        largest, smallest = (skeleton(partial(build, end)) for end in (space.largest, space.smallest))
        add_extras(largest, family.rules)
        share(smallest, largest, "", family.rules)
        return family

    def coupled(self, pairs: Mapping[str, str]) -> Family:
        """The same family, in which choices follow others, as depth and width do in CompOFA (arXiv 2104.12642).

        Args:
            pairs: from a pattern of the choices that follow to the name of the one they follow, such as
                `{"stage*.block*.expand": "stage*.depth"}`: each `*` of the second stands for what that of the first
                matched, in order. The first pattern that matches holds; no choice follows itself.

        Raises:
            FamilyError: a pattern matches no choice, or leads to none or to a later one.
            SpaceError: a choice would follow one that follows another, or a single arch is left.
        """
        follows: dict[str, str] = {}
        for pattern, followed in pairs.items():
            try:
                follows = _followers(self.space, pattern, followed) | follows
            except SpaceError as error:
                raise FamilyError(f"family {self.name!r} cannot couple {pattern!r} to {followed!r}: {error}") from error
        choices = [replace(c, follows=follows.get(c.name, c.follows)) for c in self.space.choices]
        return replace(self, space=SearchSpace(choices))

    @cached_property
    def columns(self) -> tuple[tuple[int, ...], ...]:
        """For each slot, the columns of a row that it reads."""
        return tuple(tuple(self.space.column(name) for name in slot.choices) for slot in self.slots)

    @cached_property
    def resolutions(self) -> tuple[int, ...]:
        """The allowed image resolutions in pixels."""
        return tuple(int(value) for value in self.space.choices[self.space.column("resolution")].values)

    def slot_block(self, index: int, indices: tuple[int, ...]) -> Block | None:
        """The block of slot number `index` when the choices it reads have these value indices."""
        key = (index, indices)
        if key not in self._blocks:
            choices = (self.space.choices[column] for column in self.columns[index])
            self._blocks[key] = self.slots[index].block(*(c.values[i] for c, i in zip(choices, indices, strict=True)))
        return self._blocks[key]

    @cached_property
    def _blocks(self) -> dict[tuple[int, tuple[int, ...]], Block | None]:
        return {}

    def blocks(self, row: Rows) -> Iterator[tuple[Slot, Block | None]]:
        """Each slot with its block for one row `[n_choices]`."""
        for index, slot in enumerate(self.slots):
            yield slot, self.slot_block(index, tuple(int(row[column]) for column in self.columns[index]))

    def build(self, arch: Mapping[str, Value]) -> nn.Module:
        """The static network of an arch: ordinary nested `nn.Sequential` of the blocks' modules."""
        pairs = self.blocks(self.space.encode(arch))
        return assemble({slot.path: block.build() for slot, block in pairs if block is not None})

    def input_shape(self, arch: Mapping[str, Value]) -> tuple[int, int, int]:
        """Channels, height and width of the image that the network of an arch takes."""
        resolution = int(self.space.arch(arch)["resolution"])
        return (self.in_channels, resolution, resolution)


@dataclass(frozen=True)
class _Whole:
    """A whole network as one block."""

    builder: Callable[[Arch], nn.Module]
    arch: Arch
    in_channels: int

    def build(self) -> nn.Module:
        return self.builder(self.arch)

    def input_shape(self, size: int) -> tuple[int, ...]:
        return (self.in_channels, size, size)


def _followers(space: SearchSpace, pattern: str, followed: str) -> dict[str, str]:
    """The choices that a pattern matches, each with the earlier one that it is to follow."""
    regex = "(.*)".join(map(re.escape, pattern.split("*")))
    matches = [match for name in space.names if (match := re.fullmatch(regex, name))]
    if not matches:
        space.column(pattern)  # raises
    follows = {}
    for match in matches:
        name, leader = match[0], followed
        for part in match.groups():
            leader = leader.replace("*", part, 1)
        if space.column(leader) > space.column(name):
            raise SpaceError(f"{leader!r} comes after {name!r}; let it follow instead")
        if leader != name:
            follows[name] = leader
    return follows


def assemble(modules: Mapping[str, nn.Module], training: bool = True) -> nn.Module:
    """Nests modules by their dotted paths into `nn.Sequential`s in the given mode, run in the order given.

    Names are kept where layers are skipped, so that weights match by name. A module whose path is empty is the network.
    """
    if "" in modules:
        return modules[""]
    network = nn.Sequential()
    network.training = training
    for path, module in modules.items():
        *owners, leaf = path.split(".")
        target = network
        for owner in owners:
            child = target._modules.get(owner)
            if child is None:
                child = target._modules[owner] = nn.Sequential()
                child.training = training
            target = child  # type: ignore[assignment]  # every inner node is a Sequential
        target._modules[leaf] = module
    return network
