"""Stages of a run, found by entry points, and the order in which they run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from ofa.core.errors import RunError
from ofa.core.plugins import load_plugin, plugin_names

Progress = Callable[[int, int, str], None]
"""Called with work done, work in all and a message."""

_GROUP = "ofa.stages"


@dataclass(frozen=True)
class Stage:
    """One stage of a run, registered in the entry-point group `ofa.stages`.

    Attributes:
        name: as on the command line.
        needs: stages whose results it reads.
        sections: sections of the recipe that it reads beside those of the stages it needs.
        run: does the work for the run, or for one target of it; called again after an interruption, it resumes.
        target_keys: keys of a target that it reads; None for a stage that belongs to the run and not to its targets.
        partial: patterns of the files and folders that an interrupted stage resumes from; removed when the settings
            have changed.
        expensive: a rerun resumes the result, and other settings are refused.
        check: tries early what could fail late, for the run or one target; called before any stage runs.
    """

    name: str
    needs: tuple[str, ...]
    sections: tuple[str, ...]
    run: Callable[[Any, Progress], None]
    target_keys: tuple[str, ...] | None = None
    partial: tuple[str, ...] = ()
    expensive: bool = False
    check: Callable[[Any], None] | None = None

    @property
    def per_target(self) -> bool:
        """Whether the stage runs once for each target."""
        return self.target_keys is not None

    @property
    def gathers(self) -> bool:
        """Whether the stage belongs to the run and reads what its targets made."""
        return not self.per_target and any(all_stages()[need].per_target for need in self.needs)


@cache
def all_stages() -> Mapping[str, Stage]:
    """Return all stages by name, each after the stages that it needs."""
    stages = {name: load_plugin(_GROUP, name, "stage", RunError) for name in plugin_names(_GROUP)}
    ordered: dict[str, Stage] = {}

    def add(name: str) -> None:
        if name not in ordered:
            for need in stages[name].needs:
                add(need)
            ordered[name] = stages[name]

    for name in stages:
        add(name)
    return MappingProxyType(ordered)


def readers(stage: Stage) -> set[str]:
    """Return the names of the stages that read a stage's result, directly or through others."""
    names: set[str] = set()
    for name, other in all_stages().items():  # each after those it needs
        if {stage.name, *names} & set(other.needs):
            names.add(name)
    return names
