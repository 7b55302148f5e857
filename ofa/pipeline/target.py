"""Targets: the folder of a run for one thing to deploy to, and what its stages made there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ofa.core import distributed
from ofa.core.config import validate
from ofa.core.errors import DeviceError, RunError, TableError, one_line
from ofa.core.files import write_text
from ofa.cost.latency.profile import reference
from ofa.cost.latency.table import LatencyTable
from ofa.devices.device import Device, Model, Timing
from ofa.devices.format import Format, create_format
from ofa.devices.measure import measure
from ofa.devices.registry import create_device, device_formats, device_precisions
from ofa.pipeline.folder import StageFolder
from ofa.pipeline.levels import Level, read_records
from ofa.pipeline.lock import locked
from ofa.pipeline.predictor import read_predictor
from ofa.pipeline.recipe import TargetConfig
from ofa.pipeline.stage import Stage, all_stages
from ofa.predict.predictor import Predictor

if TYPE_CHECKING:
    from ofa.pipeline.run import Run

_FILE = "target.yaml"


class Target(StageFolder):
    """One target of a run: the folder `targets/NAME` with its latency tables, front, levels and bundle."""

    def __init__(self, run: Run, config: TargetConfig) -> None:
        super().__init__(run.recipe, run.folder / "targets" / config.name)
        self.run, self.config, self.name = run, config, config.name
        self._devices: dict[str, Device] = {}
        self._locked = False

    def __repr__(self) -> str:
        return f"Target({self.name!r}: {self.config.device}, {self.config.precision}, batch {self.config.batch})"

    @cached_property
    def precisions(self) -> tuple[str, ...]:
        """The precisions to search over: the target's, or with `auto` all that its device runs.

        Raises:
            DeviceError: the device is unknown, or does not run the precision.
        """
        if self.config.table is not None:
            return (self.config.precision,)
        available = device_precisions(self.config.device)
        if self.config.precision == "auto":
            return available
        if self.config.precision not in available:
            raise DeviceError(
                f"target {self.name!r}: {self.config.device} does not run {self.config.precision}; "
                f"choose from {', '.join((*available, 'auto'))}"
            )
        return (self.config.precision,)

    def device(self, precision: str) -> Device:
        """Return the device, set up for a precision and the target's batch.

        Raises:
            DeviceError: it is unknown or cannot run here, or an option is wrong.
        """
        if precision not in self._devices:
            options = dict(self.config.options)
            options |= {"batch": self.config.batch} if self.config.batch != 1 else {}
            options |= {"precision": precision} if precision != "float32" else {}
            self._devices[precision] = create_device(self.config.device, **options)
        return self._devices[precision]

    @cached_property
    def format(self) -> Format:
        """The format of its model files; ExportError if it is unknown or refuses an option."""
        return create_format(self.config.format, **self.config.format_options)

    @property
    def file_format(self) -> str:
        """The format of its model files with its options, as JSON: what accuracies in lossy precisions depend on."""
        return json.dumps([self.config.format, self.config.format_options], sort_keys=True)

    def check(self) -> None:
        """Set the device up for every precision, or read the latency table that was given for it.

        Raises:
            ExportError: the model format is unknown or refuses an option.
            DeviceError: the device is unknown or cannot run here, or does not run a precision or the format.
            TableError: the latency table is missing, malformed, or of another family, precision or batch.
        """
        _ = self.format
        if self.config.table is None and self.config.format not in (runs := device_formats(self.config.device)):
            raise DeviceError(
                f"target {self.name!r}: {self.config.device} does not run files of the format {self.config.format!r}; "
                f"set format: {' or '.join(runs)}, or choose another device"
            )
        for precision in self.precisions:
            if self.config.table is None:
                self.device(precision)
            else:
                self.given_table()

    def given_table(self) -> LatencyTable:
        """Return the latency table that the target names; see `check`."""
        assert self.config.table is not None
        table = LatencyTable.load(self.config.table, self.run.family)
        actual = {"precision": table.device.get("precision", "float32"), "batch": table.device.get("batch", 1)}
        for key, value in actual.items():
            if value != getattr(self.config, key):
                expected = f"target {self.name!r} has {key} {getattr(self.config, key)!r}"
                raise TableError(f"{self.config.table} was measured with {key} {value!r}, {expected}; make them equal")
        return table

    def _table_digest(self) -> str | None:
        """Return a checksum of the latency table that the target names, or, if it is gone, of the run's copy."""
        assert self.config.table is not None
        for path in (self.config.table, self.table_path(self.config.precision)):
            if path.is_file():
                return hashlib.sha256(path.read_bytes()).hexdigest()
        return None

    def table_path(self, precision: str) -> Path:
        """Return the path of the latency table of a precision."""
        return self.path(f"latency_table-{precision}.json")

    def latency_table(self, precision: str | None = None) -> LatencyTable:
        """Return the latency table of a precision, by default the first of `precisions`.

        Raises:
            TableError: it is missing, malformed or of another family.
        """
        return LatencyTable.load(self.table_path(precision or self.precisions[0]), self.run.family)

    def measure(self, precision: str, models: Mapping[str, Model], stage: str, *, times: int = 1) -> dict[str, Timing]:
        """Measure whole networks in a precision, visited `times` as often as the recipe says; `stage` seeds the order.

        Statistic and speed are those of the latency table: where the reference network is slower now than it was then,
        latencies are given as they would have been.

        Raises:
            DeviceError: the device cannot run here, cannot run a model, or is lost.
        """
        of_table = self.latency_table(precision).device
        profile = self.recipe.profile
        least = profile.min_rounds * times
        rounds = {"min_rounds": least, "max_rounds": max(least, profile.max_rounds)}
        config = profile.model_copy(update={"bursts": of_table.get("bursts", "all")} | rounds)
        return measure(
            self.device(precision),
            models,
            reference(self.run.family),
            self.rng(stage),
            config=config,
            reference_ms=of_table.get("reference_ms"),
        )

    def predictor(self) -> Predictor:
        """Return the accuracy predictor that the search of this target refined, or the one of the run before."""
        if not self.finished(all_stages()["search"]):
            return self.run.predictor()
        return read_predictor(self.path("refined.safetensors"), self.run.family, self.recipe.predictor)

    @property
    def levels(self) -> list[Level]:
        """The exported levels, the slowest first; RunError if there are none, or the record is malformed."""
        return read_records(self.folder, Level)

    # What a folder of stages has to know

    def holders(self, stage: Stage) -> Iterable[StageFolder]:
        """Return this target, or its run for a stage of the run."""
        return [self if stage.per_target else self.run]

    def settings(self, stage: Stage) -> dict[str, Any]:
        """Return the sections of the recipe and the keys of the target that a stage reads; of a table, its content."""
        config = self.config.model_dump(mode="json", exclude_defaults=True)
        if self.config.table is not None:
            config["table"] = self._table_digest()
        return super().settings(stage) | {f"target {key}": config.get(key) for key in stage.target_keys or ()}

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other processes from working on this target and on what its run shares; others may do other targets."""
        if self._locked or distributed.rank() != 0:
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.run.shared(), locked(self.folder):
            self._locked = True
            try:
                yield
            finally:
                self._locked = False

    def begin(self) -> None:
        """Write the run's recipe and this target's part of it."""
        self.run.begin()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.path(_FILE), yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False))

    def affected(self) -> Iterable[StageFolder]:
        """Return this target and its run, whose report reads it."""
        return [self, self.run]

    def finished_stages(self) -> list[str]:
        """Return the names of the target's stages that are finished with the present settings."""
        return [name for name, stage in all_stages().items() if stage.per_target and self.finished(stage)]


def read_target(folder: Path) -> TargetConfig:
    """Read the settings of the target in a folder; RunError if they are missing or malformed."""
    path = folder / _FILE
    advice = "remove the folder and make the target again"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RunError(f"{path} cannot be read ({one_line(error)}); {advice}") from error
    return validate(TargetConfig, content, f"{path} (if it was not edited, {advice})", RunError)
