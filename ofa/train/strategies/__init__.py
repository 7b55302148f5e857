"""Strategies: which archs a training step runs. Each is a file, with its settings and no state."""

from typing import Annotated

from pydantic import Field

from ofa.train.strategies.base import Draw as Draw
from ofa.train.strategies.base import Phase as Phase
from ofa.train.strategies.fair import Fair as Fair
from ofa.train.strategies.full import Full as Full
from ofa.train.strategies.pareto import Pareto as Pareto
from ofa.train.strategies.sandwich import Sandwich as Sandwich
from ofa.train.strategies.uniform import Uniform as Uniform

AnyPhase = Annotated[Full | Sandwich | Uniform | Fair | Pareto, Field(discriminator="strategy")]
"""A phase of any strategy, told apart by its key `strategy`."""
