"""Tasks of the comparison: recipes, and the archs by which a supernet is judged."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

import ofa
from ofa.data.dataset import Data
from ofa.pipeline.recipe import Recipe
from ofa.pipeline.recipe_file import load_recipe

N_SPREAD, N_RANDOM = 9, 11
"""Archs that are trained alone: at even distances in log MACs, and random ones."""
FINETUNED_ARCHS, FINETUNE_EPOCHS = (0, 2, 4, 6, 8), (1, 2, 5)
"""Archs of the supernet that are finetuned as levels would be, and for how long."""
_POOL = 100_000


@dataclass(frozen=True)
class Task:
    """A shipped recipe, and the learning rate of its networks trained alone."""

    recipe_name: str
    alone_lr: float

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe as it is shipped."""
        return load_recipe(self.recipe_name)

    @cached_property
    def data(self) -> Data:
        """All images of the recipe."""
        return ofa.load_data(self.recipe.data)

    @cached_property
    def family(self) -> ofa.Family:
        """The family with the classes and channels of the data."""
        options = self.recipe.family.options
        return ofa.create_family(self.recipe.family.name, num_classes=10, in_channels=1, **options)

    @cached_property
    def archs(self) -> list[ofa.Arch]:
        """The smallest arch, the largest and those between them at even distances in log MACs; then random archs."""
        space, macs_m = self.family.space, ofa.macs_m(self.family)
        pool = space.sample(_POOL, np.random.default_rng(11))
        low, high = np.log(macs_m(space.rows([space.smallest, space.largest])))
        targets = np.linspace(low, high, N_SPREAD)[1:-1]
        nearest = np.abs(np.log(macs_m(pool)) - targets[:, None]).argmin(axis=1)
        random = space.sample(N_RANDOM, np.random.default_rng(12))
        return [space.smallest, *map(space.decode, pool[nearest]), space.largest, *map(space.decode, random)]


TASKS = {"cnn": Task("fashion_mnist", 0.5), "hybrid": Task("hybrid_fashion_mnist", 0.2)}
