"""Run directories: what one recipe made, and which stages are finished with which settings."""

import datetime
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import ValidationError
from torch import nn

from ofa.core import distributed
from ofa.core.errors import RunError
from ofa.core.files import write_json, write_text
from ofa.cost.latency.table import LatencyTable
from ofa.data.dataset import Data, DataInfo
from ofa.data.load import load_data
from ofa.data.loaders import Batches, eval_batches
from ofa.devices.device import Device
from ofa.devices.registry import create_device
from ofa.evaluate.subnets import extract_calibrated
from ofa.pipeline.levels import Level, read_records
from ofa.pipeline.lock import locked
from ofa.pipeline.recipe import Recipe
from ofa.pipeline.stage import Progress, Stage, all_stages, readers
from ofa.predict.mlp import AccuracyPredictor
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
        return Run(Recipe.model_validate(content), folder)
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise RunError(f"{folder} is not a run directory with a readable recipe.yaml: {error}") from error


class Run:
    """A run directory, created if missing, with its recipe; RunError if it cannot be written or holds other files."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        self._locked = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if distributed.rank() == 0 and any(folder.iterdir()) and not self.path("recipe.yaml").exists():
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
        same = isinstance(content, dict) and content.get("config") == self.recipe.data.model_dump(mode="json")
        return DataInfo.from_json(json.dumps(content.get("info"))) if same else None

    @cached_property
    def family(self) -> Family:
        """The recipe's family, for its data set."""
        config = self.recipe.family
        info = self.data_info
        options = config.options | {"num_classes": len(info.labels), "in_channels": info.in_channels}
        return create_family(config.name, **options).coupled(config.couple)

    @cached_property
    def device(self) -> Device:
        """The recipe's device."""
        return create_device(self.recipe.profile.device, **self.recipe.profile.options)

    def rng(self, stage: str) -> np.random.Generator:
        """Return a generator for one stage, from the recipe's seed."""
        return np.random.default_rng((self.recipe.seed, *stage.encode()))

    def check_inputs(self) -> None:
        """Make data, family and device and run the checks of all stages, so that errors appear before any long work."""
        _ = self.data, self.device
        check_family(self.family)
        if distributed.rank() == 0:
            for stage in all_stages().values():
                if stage.check is not None and not self.finished(stage):
                    stage.check(self)

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

    def predictor(self) -> AccuracyPredictor:
        """Return the accuracy predictor that the search refined, or the one fitted to random archs before."""
        name = "refined.safetensors" if self.finished(all_stages()["search"]) else "predictor.safetensors"
        return AccuracyPredictor.load(self.path(name), self.family.space)

    def latency_table(self) -> LatencyTable:
        """Return the latency table of the run's device; TableError if it is missing, malformed or of another family."""
        return LatencyTable.load(self.path("latency_table.json"), self.family)

    def path(self, name: str) -> Path:
        """Return the path of a file of this run."""
        return self.folder / name

    def read_json(self, name: str) -> Any:
        """Read a JSON file of this run; RunError if it is missing or broken."""
        try:
            return json.loads(self.path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path(name)} cannot be read ({error}); run the stage that makes it again") from error

    @property
    def levels(self) -> list[Level]:
        """The exported levels, the slowest first; RunError if there are none, or the record is malformed."""
        return read_records(self.folder, Level)

    # Stages

    def fingerprint(self, stage: Stage) -> str:
        """Return a hash of all settings that a stage's result depends on."""
        stages, content = all_stages(), self.recipe.model_dump(mode="json")
        settings = {section: content[section] for section in ("seed", *stage.sections)}
        settings |= {f"needs {need}": self.fingerprint(stages[need]) for need in stage.needs}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

    def finished(self, stage: Stage) -> bool:
        """Return whether a stage is finished with the present settings."""
        record = self.records().get(stage.name, {})
        return bool(record.get("finished")) and record["fingerprint"] == self.fingerprint(stage)

    def check_unchanged(self, stage: Stage) -> None:
        """Raise RunError for a stage that was started or finished with other settings."""
        record = self.records().get(stage.name)
        if record is not None and record["fingerprint"] != self.fingerprint(stage):
            raise RunError(
                f"{self.folder} has a {stage.name!r} stage made with another recipe (it reads the sections "
                f"{', '.join(('seed', *stage.sections))}); restore the recipe, or give another directory with --run"
            )

    def require(self, need: str, reader: str) -> None:
        """Raise RunError if a stage that `reader` needs is not finished or was made with another recipe."""
        stage = all_stages()[need]
        self.check_unchanged(stage)
        if not self.finished(stage):
            raise RunError(f"{reader!r} needs the {need!r} stage of {self.folder}; run `ofa {need}` first")

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other processes from working on this run, or raise RunError if one does; may be nested."""
        if self._locked or distributed.rank() != 0:
            yield
            return
        with locked(self.folder):
            self._locked = True
            try:
                yield
            finally:
                self._locked = False

    def execute(self, stage: Stage, progress: Progress) -> None:
        """Run one stage, even if it is finished; one that was interrupted with the same settings resumes.

        Stages that read its result must run again afterwards. Of several processes, rank 0 keeps the records. It is a
        RunError if a needed stage is missing or of another recipe, or if another process is working on this run.
        """
        for need in stage.needs:
            self.require(need, stage.name)
        with self.exclusive(), self._recorded(stage) if distributed.rank() == 0 else nullcontext():
            stage.run(self, progress)
            distributed.barrier()

    @contextmanager
    def _recorded(self, stage: Stage) -> Iterator[None]:
        """Record that a stage starts and, at the end, how long it took and whether it finished."""
        fingerprint, record = self.fingerprint(stage), self.records().get(stage.name, {})
        if stage.expensive:
            self.check_unchanged(stage)
        resumes = record.get("fingerprint") == fingerprint and (stage.expensive or not record["finished"])
        seconds = float(record["seconds"]) if resumes else 0.0
        write_text(self.path("recipe.yaml"), self.recipe.to_yaml())
        data = {"config": self.recipe.data.model_dump(mode="json"), "info": asdict(self.data_info)}
        write_json(self.path("data.json"), data)
        self._record(stage, fingerprint, seconds, None)
        start, finished = time.monotonic(), None
        try:
            yield
            finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        finally:
            self._record(stage, fingerprint, seconds + time.monotonic() - start, finished)

    def records(self) -> dict[str, dict[str, Any]]:
        """Return what `stages.json` says of each stage: fingerprint, seconds, finished."""
        records: dict[str, dict[str, Any]] = self.read_json("stages.json") if self.path("stages.json").exists() else {}
        return records

    def _record(self, stage: Stage, fingerprint: str, seconds: float, finished: str | None) -> None:
        record = {"fingerprint": fingerprint, "seconds": round(seconds, 2), "finished": finished}
        stale = set() if stage.expensive else readers(stage)  # an expensive result comes out the same
        others = {name: other for name, other in self.records().items() if name not in stale}
        write_json(self.path("stages.json"), others | {stage.name: record})
