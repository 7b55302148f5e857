"""Strategies: which archs a training step runs. Each is one file, with its settings and no state."""

from typing import Annotated

from pydantic import Field

from ofa.train.strategies.fair import Fair
from ofa.train.strategies.full import Full
from ofa.train.strategies.pareto import Pareto
from ofa.train.strategies.sandwich import Sandwich
from ofa.train.strategies.uniform import Uniform

AnyPhase = Annotated[Full | Sandwich | Uniform | Fair | Pareto, Field(discriminator="strategy")]
"""A phase of any strategy, told apart by its key `strategy`."""
