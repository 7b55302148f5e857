"""Run directories: everything one recipe made, and which stages are finished with which settings."""

from __future__ import annotations

import datetime
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import ValidationError

from ofa.core import distributed
from ofa.core.errors import FamilyError, RunError
from ofa.core.files import write_json, write_text
from ofa.data.dataset import Data
from ofa.data.load import load_data
from ofa.devices.device import Device
from ofa.devices.registry import create_device
from ofa.pipeline.recipe import Recipe
from ofa.supernet.family import Family
from ofa.supernet.registry import create_family

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Stage:
    """One stage of the main job, found through the entry-point group `ofa.stages`.

    Attributes:
        name: as on the command line.
        needs: stages whose results it reads.
        sections: sections of the recipe it reads beside theirs.
        run: does the work; called again after a kill, it goes on where it was.
        keep: what it made took long: run again, it goes on from there, and with other settings it is refused.
    """

    name: str
    needs: tuple[str, ...]
    sections: tuple[str, ...]
    run: Callable[[Run, Progress], None]
    keep: bool = False


def stages() -> dict[str, Stage]:
    """All stages by name, each after those it needs."""
    found = {point.name: point.load() for point in entry_points(group="ofa.stages")}
    ordered: dict[str, Stage] = {}

    def add(name: str) -> None:
        if name not in ordered:
            for need in found[name].needs:
                add(need)
            ordered[name] = found[name]

    for name in sorted(found):
        add(name)
    return ordered


class Run:
    """A run directory with its recipe.

    Args:
        recipe: what it is made from.
        folder: the directory, made if missing.

    Raises:
        RunError: the directory cannot be written, or is not a run directory.
    """

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if distributed.rank() == 0 and any(folder.iterdir()) and not (folder / "recipe.yaml").exists():
                raise RunError(f"{folder} holds other files; give an empty or new directory with --run")
        except OSError as error:
            raise RunError(f"cannot write the run directory {folder}: {error}; give another with --run") from error

    @classmethod
    def open(cls, folder: Path) -> Run:
        """The run of an existing directory.

        Raises:
            RunError: it is not a run directory.
        """
        try:
            content = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
            return cls(Recipe.model_validate(content), folder)
        except (OSError, yaml.YAMLError, ValidationError) as error:
            raise RunError(f"{folder} is not a run directory with a readable recipe.yaml: {error}") from error

    @cached_property
    def data(self) -> Data:
        """The recipe's data set."""
        return load_data(self.recipe.data)

    @cached_property
    def family(self) -> Family:
        """The recipe's family, for its data set."""
        options = dict(self.recipe.family.options)
        options |= {"num_classes": len(self.data.labels), "in_channels": self.data.in_channels}
        try:
            made = create_family(self.recipe.family.name, **options)
        except (TypeError, ValueError) as error:
            raise FamilyError(f"family.options of the recipe: {error}") from error
        return made.coupled(self.recipe.family.couple)

    @cached_property
    def device(self) -> Device:
        """The recipe's device."""
        return create_device(self.recipe.profile.device, **self.recipe.profile.options)

    def check_inputs(self) -> None:
        """Makes data, family and device, so that what is wrong with them is known before any long work.

        Raises:
            OfaError: something is.
        """
        _ = self.data, self.family, self.device

    def path(self, name: str) -> Path:
        """A file of this run."""
        return self.folder / name

    def read_json(self, name: str) -> Any:
        """A JSON file of this run.

        Raises:
            RunError: it is missing or broken.
        """
        try:
            return json.loads(self.path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path(name)} cannot be read ({error}); run the stage that makes it again") from error

    def rng(self, stage: str) -> np.random.Generator:
        """A generator for one stage, from the recipe's seed."""
        return np.random.default_rng((self.recipe.seed, *stage.encode()))

    # Stages

    def fingerprint(self, stage: Stage) -> str:
        """Identifies all settings that a stage's result depends on."""
        every, content = stages(), self.recipe.model_dump(mode="json")
        used = {section: content[section] for section in ("seed", *stage.sections)}
        used |= {f"needs {need}": self.fingerprint(every[need]) for need in stage.needs}
        return hashlib.sha256(json.dumps(used, sort_keys=True).encode()).hexdigest()[:16]

    def finished(self, stage: Stage) -> bool:
        """Whether a stage is done with the present settings."""
        record = self.records().get(stage.name, {})
        return bool(record.get("finished")) and record["fingerprint"] == self.fingerprint(stage)

    def check_unchanged(self, stage: Stage) -> None:
        """Refuses what a stage began or finished with other settings.

        Raises:
            RunError: it did.
        """
        record = self.records().get(stage.name)
        if record is not None and record["fingerprint"] != self.fingerprint(stage):
            raise RunError(
                f"{self.folder} has a {stage.name!r} stage made with another recipe (it reads the sections "
                f"{', '.join(('seed', *stage.sections))}); put the recipe back, or give another directory with --run"
            )

    def require(self, need: str, what: str) -> None:
        """Refuses to go on without a finished stage.

        Args:
            need: the stage's name.
            what: needs it.

        Raises:
            RunError: it is missing or was made with another recipe.
        """
        self.check_unchanged(stages()[need])
        if not self.finished(stages()[need]):
            raise RunError(f"{what!r} needs the {need!r} stage of {self.folder}; run `ofa {need}` first")

    def execute(self, stage: Stage, progress: Progress) -> None:
        """Runs one stage, also if it was finished before; what was begun with the same settings is gone on with.

        Stages that read its result have to be run again. Of processes that work together (`ofa.core.distributed`),
        one keeps
        the records.

        Raises:
            RunError: a stage that it needs is missing or was made with another recipe.
        """
        for need in stage.needs:
            self.require(need, stage.name)
        if distributed.rank() != 0:
            stage.run(self, progress)
            distributed.wait_for_all()
            return
        fingerprint = self.fingerprint(stage)
        record = self.records().get(stage.name, {})
        if stage.keep:
            self.check_unchanged(stage)
        going_on = record.get("fingerprint") == fingerprint and (stage.keep or not record["finished"])
        seconds = float(record["seconds"]) if going_on else 0.0
        write_text(self.path("recipe.yaml"), self.recipe.to_yaml())
        self._record(stage, fingerprint, seconds, None)
        begin = time.monotonic()
        try:
            stage.run(self, progress)
        except BaseException:
            self._record(stage, fingerprint, seconds + time.monotonic() - begin, None)
            raise
        distributed.wait_for_all()
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._record(stage, fingerprint, seconds + time.monotonic() - begin, now)

    def records(self) -> dict[str, dict[str, Any]]:
        """What `stages.json` says of each stage: fingerprint, seconds, finished."""
        records: dict[str, dict[str, Any]] = self.read_json("stages.json") if self.path("stages.json").exists() else {}
        return records

    def _record(self, stage: Stage, fingerprint: str, seconds: float, finished: str | None) -> None:
        record = {"fingerprint": fingerprint, "seconds": round(seconds, 2), "finished": finished}
        stale = set() if stage.keep else _readers(stage)  # what is kept comes out the same
        others = {name: other for name, other in self.records().items() if name not in stale}
        write_json(self.path("stages.json"), others | {stage.name: record})


def _readers(stage: Stage) -> set[str]:
    """The stages that read a stage's result, or what was made of it."""
    found: set[str] = set()
    for name, other in stages().items():  # each after those it needs
        if {stage.name, *found} & set(other.needs):
            found.add(name)
    return found
