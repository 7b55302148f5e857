"""Layouts: the choices and slots of a family, collected in the order of the data flow."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from ofa import Choice, Family, SearchSpace, Slot
from ofa.space.arch import Value
from ofa.supernet.block import Block
from ofa.supernet.rules import Rule


class Layout:
    """Choices and slots of a family whose classifier is `head.classifier`, for images of ascending resolutions."""

    def __init__(self, resolutions: Sequence[int]) -> None:
        self.choices = [Choice("resolution", tuple(resolutions))]
        self.slots: list[Slot] = []
        self.reduction = 1  # ratio of the image's size to the size of the current feature map

    def choice(self, name: str, values: Sequence[Value]) -> Choice:
        """Add a choice and return it."""
        self.choices.append(Choice(name, tuple(values)))
        return self.choices[-1]

    def block(self, path: str, block: Callable[..., Block | None], *reads: Choice, stride: int = 1) -> None:
        """Add a slot, whose block depends on the choices that it reads and reduces the feature map by a stride."""
        self.slots.append(Slot(path, block, tuple(choice.name for choice in reads), self.reduction))
        self.reduction *= stride

    def stage(
        self,
        stage: int | None,
        depth: Choice,
        blocks: Sequence[Callable[..., Block]],
        *,
        shared: Sequence[Choice] = (),
        own: Mapping[str, Sequence[Value]] = MappingProxyType({}),
        in_width: Choice | None = None,
        stride: int = 1,
    ) -> None:
        """Add the slots of a stage, of which smaller networks keep the first blocks, and the blocks' own choices.

        Args:
            stage: number of the stage, for names such as `stage2.block0.kernel`; None for `block0.kernel`.
            depth: number of blocks.
            blocks: for each position, a function from the values of the choices that the block reads to the block.
            shared: read by every block.
            own: names and values of the choices that each block has for itself, read after the shared ones.
            in_width: the stage's input channels, if the first block reads them, before the others.
            stride: of the first block.
        """
        prefix, path = ("", "blocks") if stage is None else (f"stage{stage}.", f"stages.{stage}")
        for b, block in enumerate(blocks):
            needs = depth.needs_for(b)
            choices = [Choice(f"{prefix}block{b}.{name}", tuple(own[name]), needs) for name in own]
            first, build = (depth, partial(_within_depth, b, block)) if b or in_width is None else (in_width, block)
            self.choices += choices
            self.block(f"{path}.{b}", build, first, *shared, *choices, stride=stride if b == 0 else 1)

    def family(
        self, name: str, in_channels: int, *, rules: Mapping[str, Rule] | None = None, resolution_multiple: int = 1
    ) -> Family:
        """Return the family; for the arguments see `ofa.Family`."""
        return Family(
            name=name,
            space=SearchSpace(self.choices),
            slots=tuple(self.slots),
            in_channels=in_channels,
            rules=rules or {},
            resolution_multiple=resolution_multiple,
            classifiers=("head.classifier",),
        )


def _within_depth(b: int, block: Callable[..., Block], depth: int, *values: Value) -> Block | None:
    return block(*values) if b < depth else None
