"""Families: a search space and the slots that turn an arch of it into a network."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Self

from torch import nn

from ofa.core.errors import FamilyError, SpaceError
from ofa.space.arch import Arch, Rows, Value
from ofa.space.choice import Choice
from ofa.space.coupling import couple
from ofa.space.graphs import Graphs
from ofa.space.search_space import SearchSpace
from ofa.supernet.block import Block, skeleton
from ofa.supernet.graphs import chain_of_slots
from ofa.supernet.rules import Rule
from ofa.supernet.sharing import add_extras, share
from ofa.supernet.slot import Slot, assemble


@dataclass(frozen=True)
class Origin:
    """How `ofa.create_family` made a family, so that it can be made again: its arguments, defaults included.

    `couple` holds the pairs given to `Family.coupled`.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    couple: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, repr=False)
class Family:
    """A search space and the slots that turn an arch of it into a network.

    Attributes:
        name: as registered.
        space: its choices; every family has the choice `resolution`.
        slots: in the order in which data flows through them.
        in_channels: channels of the images.
        rules: how parameters are shared that are not plain slices, by patterns over their names; the first that
            matches holds, see `ofa.supernet.rules`.
        resolution_multiple: number of pixels that divides every resolution, such as a patch size.
        classifiers: paths of the layers whose outputs are the classes, such as `head.classifier`.
        origin: how the family was made; None if not by `ofa.create_family`.
    """

    name: str
    space: SearchSpace
    slots: tuple[Slot, ...]
    in_channels: int = 3
    rules: Mapping[str, Rule] = field(default_factory=dict)
    resolution_multiple: int = 1
    classifiers: tuple[str, ...] = ()
    origin: Origin | None = None

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
        skipped = [slot.path for slot, block in self.blocks(self.space.row(self.space.largest)) if block is None]
        if skipped:
            raise FamilyError(f"family {self.name!r}: the largest network skips {skipped}; it must contain every slot")

    def __repr__(self) -> str:
        return f"Family({self.name!r}, {len(self.slots)} slots, {self.space!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # immutable

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle what `create_family` made by its origin: slots may hold lambdas, which cannot be pickled."""
        if self.origin is None:
            return super().__reduce__()
        from ofa.supernet.registry import recreate_family  # it makes families

        return recreate_family, (self.origin,)

    @property
    def options(self) -> Mapping[str, Any]:
        """The options that `ofa.create_family` was given, defaults included."""
        return {} if self.origin is None else self.origin.options

    @property
    def is_whole(self) -> bool:
        """Whether each network is a single block, as with `from_builder`."""
        return [slot.path for slot in self.slots] == [""]

    @property
    def graphs(self) -> Callable[[Rows], Graphs] | None:
        """A function from rows `[n, n_choices]` to graphs whose nodes are slots; None if networks are single blocks."""
        return None if self.is_whole else partial(chain_of_slots, self)

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
    ) -> "Family":
        """Make a family out of any function that builds a network; weights are shared by parameter name.

        `build` maps an arch to a network that takes images `[batch, in_channels, resolution, resolution]`; the network
        of the last values must hold all parameters of every other. It is one slot, so costs are those of whole
        networks. `resolution` is the image size in pixels if the space has no such choice. For the other arguments see
        `Family`.

        Raises:
            FamilyError: the smallest network's parameters are not parts of the largest's; names one with both shapes.
        """
        if "resolution" not in space.names:
            space = SearchSpace([Choice("resolution", (resolution,)), *space.choices])
        slot = Slot("", partial(_whole_network, build, space, in_channels), space.names)
        family = cls(name, space, (slot,), in_channels, rules or {}, resolution_multiple, tuple(classifiers))
        largest, smallest = (skeleton(partial(build, end)) for end in (space.largest, space.smallest))
        add_extras(largest, family.rules)
        share(smallest, largest, "", family.rules)
        return family

    def coupled(self, pairs: Mapping[str, str]) -> "Family":
        """Return the family with choices that follow others, as depth and width do in CompOFA (arXiv 2104.12642).

        For the patterns of choices and of those they follow see `ofa.space.coupling.couple`.

        Raises:
            FamilyError: a pattern matches no choice, leads to none or to a later one, or a single arch is left.
        """
        try:
            space = couple(self.space, pairs)
        except SpaceError as error:
            raise FamilyError(f"family {self.name!r}: {error}") from error
        if self.origin is None:
            return replace(self, space=space)
        earlier = {pattern: followed for pattern, followed in self.origin.couple.items() if pattern not in pairs}
        return replace(self, space=space, origin=replace(self.origin, couple={**pairs, **earlier}))

    @cached_property
    def columns(self) -> tuple[tuple[int, ...], ...]:
        """The columns of a row that each slot reads."""
        return tuple(tuple(self.space.column(name) for name in slot.choices) for slot in self.slots)

    @cached_property
    def resolutions(self) -> tuple[int, ...]:
        """The allowed image resolutions in pixels."""
        return tuple(int(value) for value in self.space.choices[self.space.column("resolution")].values)

    def slot_block(self, index: int, indices: tuple[int, ...]) -> Block | None:
        """Return the block of slot number `index` when the choices it reads have these value indices."""
        key = (index, indices)
        if key not in self._blocks:
            choices = (self.space.choices[column] for column in self.columns[index])
            values = (choice.values[i] for choice, i in zip(choices, indices, strict=True))
            self._blocks[key] = self.slots[index].block(*values)
        return self._blocks[key]

    @cached_property
    def _blocks(self) -> dict[tuple[int, tuple[int, ...]], Block | None]:
        return {}

    def blocks(self, row: Rows) -> Iterator[tuple[Slot, Block | None]]:
        """Yield each slot with its block for one row `[n_choices]`."""
        for index, slot in enumerate(self.slots):
            yield slot, self.slot_block(index, tuple(int(row[column]) for column in self.columns[index]))

    def blocks_by_path(self, arch: Mapping[str, Value] | Rows) -> dict[str, Block]:
        """Return the blocks of an arch or a row `[n_choices]`, skipped slots left out, by the paths of their slots."""
        return {slot.path: block for slot, block in self.blocks(self.space.row(arch)) if block is not None}

    def build(self, arch: Mapping[str, Value] | Rows) -> nn.Module:
        """Build the static network of an arch or a row: nested `nn.Sequential`s of the blocks' modules."""
        return assemble({path: block.build() for path, block in self.blocks_by_path(arch).items()})

    def input_shape(self, arch: Mapping[str, Value] | Rows) -> tuple[int, int, int]:
        """Return channels, height and width of the images that the network of an arch or a row takes."""
        resolution = self.resolutions[self.space.row(arch)[self.space.column("resolution")]]
        return (self.in_channels, resolution, resolution)


def _whole_network(build: Callable[[Arch], nn.Module], space: SearchSpace, in_channels: int, *values: Value) -> Block:
    """Return the network of the values of all choices as one block."""
    return _WholeNetwork(build, space.arch(dict(zip(space.names, values, strict=True))), in_channels)


@dataclass(frozen=True)
class _WholeNetwork:
    builder: Callable[[Arch], nn.Module]
    arch: Arch
    in_channels: int

    def build(self) -> nn.Module:
        return self.builder(self.arch)

    def input_shape(self, size: int) -> tuple[int, ...]:
        return (self.in_channels, size, size)
