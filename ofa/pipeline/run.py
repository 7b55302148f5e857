"""Run directories: what one recipe made, for all of its targets."""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from ofa.core import distributed
from ofa.core.config import validate
from ofa.core.errors import DeviceError, RecipeError, RunError, nearest
from ofa.core.files import write_json, write_text
from ofa.data.dataset import Data, DataHeader, DataInfo
from ofa.data.load import load_data
from ofa.data.loaders import Batches, eval_batches
from ofa.evaluate.subnets import extract_calibrated
from ofa.pipeline.folder import StageFolder
from ofa.pipeline.levels import Level
from ofa.pipeline.lock import locked
from ofa.pipeline.predictor import read_predictor
from ofa.pipeline.recipe import Recipe, TargetConfig
from ofa.pipeline.stage import Progress, Stage, all_stages
from ofa.pipeline.target import Target, read_target
from ofa.predict.predictor import Predictor
from ofa.space.arch import Rows, Value
from ofa.supernet.family import Family
from ofa.supernet.registry import check_family, create_family
from ofa.supernet.supernet import Supernet


def open_run(folder: str | Path) -> "Run":
    """Open an existing run directory; RunError if it is none.

    `run.supernet()` is the trained supernet, `run.network(arch)` a subnet of it that is ready to use, `run.data` the
    data set, `run.levels` what was exported.
    """
    folder = Path(folder).expanduser()
    try:
        content = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
        return Run(validate(Recipe, content, "recipe.yaml"), folder)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecipeError) as error:
        raise RunError(f"{folder} is not a run directory with a readable recipe.yaml: {error}") from error


def family_for(recipe: Recipe, data: DataHeader) -> Family:
    """Return a recipe's family with the classes and channels of a data set."""
    config = recipe.family
    options = config.options | {"num_classes": len(data.labels), "in_channels": data.in_channels}
    return create_family(config.name, **options).coupled(config.couple)


class Run(StageFolder):
    """A run directory, created if missing, with its recipe; RunError if it cannot be written or holds other files."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        super().__init__(recipe, folder)
        self._targets: dict[str, Target] = {}
        self._locked = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Hidden files are locks and halves of files, which a process that was killed may leave.
            others = any(not path.name.startswith(".") for path in folder.iterdir())
            if distributed.rank() == 0 and others and not self.path("recipe.yaml").exists():
                raise RunError(f"{folder} holds other files; give an empty or new directory with --run")
        except OSError as error:
            raise RunError(f"cannot write the run directory {folder}: {error}; give another with --run") from error

    # What the recipe describes

    @cached_property
    def data(self) -> Data:
        """The recipe's data set; RunError if it is not the one that the run was begun with."""
        data, recorded = load_data(self.recipe.data), self._recorded_data()
        if recorded is not None and recorded.digest != data.info.digest:
            raise RunError(
                f"the images of {data.name!r} have changed since {self.folder} was begun; "
                "restore them, or give another directory with --run"
            )
        return data

    @cached_property
    def data_info(self) -> DataInfo:
        """What is known of the data set without its images: read from the run, or from the images if it is new."""
        return self._recorded_data() or self.data.info

    def _recorded_data(self) -> DataInfo | None:
        if not self.path("data.json").exists():
            return None
        content = self.read_json("data.json")
        same = isinstance(content, dict) and content.get("config") == self._data_settings()
        return DataInfo.from_json(json.dumps(content.get("info"))) if same else None

    def _data_settings(self) -> dict[str, Any]:
        return self.recipe.data.model_dump(mode="json", exclude_defaults=True)

    @cached_property
    def family(self) -> Family:
        """The recipe's family, for its data set."""
        return family_for(self.recipe, self.data_info)

    def check_inputs(self) -> dict[str, DeviceError]:
        """Make data, family and devices and run the checks of all stages, so that errors appear before any long work.

        Returns:
            The error of each target, by name, whose device cannot be used now. It is raised if there is no other.
        """
        _ = self.data
        check_family(self.family)
        if distributed.rank() == 0:
            for stage in all_stages().values():
                for holder in self.holders(stage):
                    if stage.check is not None and not holder.finished(stage):
                        stage.check(holder)
        unreachable = {}
        for target in self.targets:
            try:
                target.check()
            except DeviceError as error:
                unreachable[target.name] = error
        if len(unreachable) == len(self.targets):
            raise next(iter(unreachable.values()))
        return unreachable

    # What the stages made

    def supernet(self) -> Supernet:
        """Return the trained supernet; RunError if the training is not finished, or was made with another recipe."""
        self.require("train", "the supernet")
        return Supernet.load(self.path("supernet.safetensors"), self.family)

    def network(self, arch: Mapping[str, Value] | Rows) -> nn.Module:
        """Return a subnet with its own weights, BatchNorm re-estimated, in eval mode; it scores as `ofa evaluate` says.

        Raises:
            RunError: the training is not finished, or was made with another recipe.
            SpaceError: the arch is not of the run's family.
        """
        return extract_calibrated(self.supernet(), arch, self.calibration_batches(arch))

    def calibration_batches(self, arch: Mapping[str, Value] | Rows) -> Batches:
        """Return the training images on which an arch's BatchNorm statistics are re-estimated."""
        resolution, limit = self.family.input_shape(arch)[1], self.recipe.sample.calibration_images
        return eval_batches(self.data, self.data.train, resolution, limit=limit)

    def validation_batches(self, arch: Mapping[str, Value] | Rows) -> Batches:
        """Return the validation images on which an arch's accuracy is measured."""
        resolution, limit = self.family.input_shape(arch)[1], self.recipe.sample.images
        return eval_batches(self.data, self.data.validation, resolution, limit=limit)

    def predictor(self) -> Predictor:
        """Return the accuracy predictor fitted to random archs; that of a target has seen its front, too."""
        return read_predictor(self.path("predictor.safetensors"), self.family, self.recipe.predictor)

    @property
    def levels(self) -> list[Level]:
        """The exported levels of all targets, each from the slowest to the fastest; RunError if there are none."""
        finished = [target for target in self.targets if target.finished(all_stages()["export"])]
        if not finished:
            raise RunError(f"{self.folder} has no exported levels; run `ofa export` first")
        return [level for target in finished for level in target.levels]

    # Targets

    @property
    def targets(self) -> list[Target]:
        """The targets of the recipe, then those that `specialize` added, by name."""
        configs = {config.name: config for config in self.recipe.targets}
        if self.path("targets").is_dir():
            folders = (folder for folder in sorted(self.path("targets").iterdir()) if folder.name not in configs)
            configs |= {folder.name: read_target(folder) for folder in folders if (folder / "target.yaml").exists()}
        return [self._target(config) for config in configs.values()]

    def _target(self, config: TargetConfig) -> Target:
        known = self._targets.get(config.name)
        if known is None or known.config != config:
            self._targets[config.name] = Target(self, config)
        return self._targets[config.name]

    def target(self, name: str | None = None) -> Target:
        """Return a target by name, by default the first one; RunError if there is none of that name."""
        targets = {target.name: target for target in self.targets}
        if name is None:
            return next(iter(targets.values()))
        if name not in targets:
            raise RunError(f"{self.folder} has no target {name!r}; {nearest(name, targets)}")
        return targets[name]

    def specialize(self, config: TargetConfig, progress: Progress = lambda done, total, message: None) -> Target:
        """Make a target that the recipe need not name: its latency table, front, levels and bundle.

        Nothing is trained, and accuracies that other targets measured are used. An interrupted call resumes.

        Raises:
            RunError: the run has no trained supernet and predictor, or its recipe has another target of this name.
        """
        target = self.new_target(config)
        for stage in all_stages().values():
            if stage.per_target and not target.finished(stage):
                target.execute(stage, progress)
        return target

    def new_target(self, config: TargetConfig) -> Target:
        """Return a target to `specialize`, after all checks that take no long time."""
        for need in ("train", "sample", "fit"):
            self.require(need, f"target {config.name}")
        if any(known.name == config.name and known != config for known in self.recipe.targets):
            raise RunError(f"the recipe of {self.folder} has a target {config.name!r}; give another name or change it")
        target = self._target(config)
        target.check()
        for stage in all_stages().values():
            if stage.per_target and stage.check is not None and not target.finished(stage):
                stage.check(target)
        return target

    def remove_target(self, name: str) -> None:
        """Remove a target's folder; accuracies that were measured for it stay."""
        target = self.target(name)
        if target.folder.exists():
            with target.exclusive():
                shutil.rmtree(target.folder)
            self.forget({"report"})
        self._targets.pop(name, None)

    # What a folder of stages has to know

    def holders(self, stage: Stage) -> Iterable[StageFolder]:
        """Return this run, or its targets for a stage that runs for each."""
        return self.targets if stage.per_target else [self]

    def finished(self, stage: Stage) -> bool:
        """Return whether a stage is finished with the present settings, for all targets if it runs for each."""
        return all(target.finished(stage) for target in self.targets) if stage.per_target else super().finished(stage)

    def execute(self, stage: Stage, progress: Progress) -> None:
        """Run one stage, for each target if it is of that kind; see `StageFolder.execute`."""
        if not stage.per_target:
            super().execute(stage, progress)
            return
        for target in self.targets:
            target.execute(stage, progress)

    def begin(self) -> None:
        """Write the recipe and the record of its data; RunError if a long stage was made with another recipe."""
        for stage in all_stages().values():
            if stage.expensive:
                self.check_unchanged(stage)
        write_text(self.path("recipe.yaml"), self.recipe.to_yaml())
        data = {"config": self._data_settings(), "info": asdict(self.data_info)}
        write_json(self.path("data.json"), data)

    def affected(self) -> Iterable[StageFolder]:
        """Return this run and its targets."""
        return [self, *self.targets]

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other processes from working on this run and its targets, or raise RunError if one does."""
        with self._lock(shared=False):
            yield

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Keep other processes from changing what targets share, or raise RunError if one does."""
        with self._lock(shared=True):
            yield

    @contextmanager
    def _lock(self, *, shared: bool) -> Iterator[None]:
        if self._locked or distributed.rank() != 0:
            yield
            return
        with locked(self.folder, shared=shared):
            self._locked = True
            try:
                yield
            finally:
                self._locked = False
