"""Stages of a run, found by entry points, and the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from ofa.core.errors import RunError
from ofa.core.plugins import load_plugin, plugin_names

if TYPE_CHECKING:
    from ofa.pipeline.run import Run

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
        run: does the work; called again after an interruption, it resumes.
        expensive: a rerun resumes the result, and other settings are refused.
        check: tries early what could fail late; called before any stage runs.
    """

    name: str
    needs: tuple[str, ...]
    sections: tuple[str, ...]
    run: Callable[[Run, Progress], None]
    expensive: bool = False
    check: Callable[[Run], None] | None = None


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
