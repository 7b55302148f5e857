"""Folders that stages write to: which stages are finished with which settings, and who may work there."""

import datetime
import hashlib
import json
import math
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ofa.core import distributed
from ofa.core.errors import RunError
from ofa.core.files import read_json, write_json
from ofa.pipeline.recipe import Recipe
from ofa.pipeline.stage import Progress, Stage, all_stages, readers

_PROGRESS = "progress.json"
_SECONDS_KEPT = 1.0


class StageFolder(ABC):
    """A folder with the files that stages made and a record of each stage in `stages.json`: a run or a target."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder

    @abstractmethod
    def holders(self, stage: Stage) -> "Iterable[StageFolder]":
        """Return the folders whose result of a stage is read here."""

    def settings(self, stage: Stage) -> dict[str, Any]:
        """Return the settings that a stage of this folder reads, without those of the stages it needs.

        Defaults are left out, so that a run stays valid when a new version adds a setting.
        """
        content = self.recipe.model_dump(mode="json", exclude_defaults=True)
        return {section: content.get(section) for section in ("seed", *stage.sections)}

    @abstractmethod
    def exclusive(self) -> AbstractContextManager[None]:
        """Keep other processes from working here, or raise RunError if one does; may be nested."""

    @abstractmethod
    def begin(self) -> None:
        """Write what this folder is made from, before a stage runs."""

    @abstractmethod
    def affected(self) -> "Iterable[StageFolder]":
        """Return the folders with stages that read results of this one, itself included."""

    def path(self, name: str) -> Path:
        """Return the path of a file here."""
        return self.folder / name

    def read_json(self, name: str) -> Any:
        """Read a JSON file of this folder; RunError if it is missing or broken."""
        try:
            return read_json(self.path(name))
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path(name)} cannot be read ({error}); run the stage that makes it again") from error

    def rng(self, stage: str) -> np.random.Generator:
        """Return a generator for one stage, from the recipe's seed."""
        return np.random.default_rng((self.recipe.seed, *stage.encode()))

    def fingerprint(self, stage: Stage) -> str:
        """Return a hash of all settings that the result of a stage of this folder depends on."""
        settings = self.settings(stage)
        for need in stage.needs:
            needed = all_stages()[need]
            gathers = needed.per_target and not stage.per_target  # those targets that are finished
            holders = self.holders(needed)
            prints = [one.fingerprint(needed) for one in holders if not gathers or one.finished(needed)]
            settings[f"needs {need}"] = prints if gathers else prints[0]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

    def finished(self, stage: Stage) -> bool:
        """Return whether a stage of this folder is finished with the present settings."""
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
        holders = list(self.holders(stage))
        if any(holder.finished(stage) for holder in holders):
            return
        for holder in holders:
            holder.check_unchanged(stage)
        raise RunError(f"{reader!r} needs the {need!r} stage of {self.folder}; run `ofa {need}` first")

    def execute(self, stage: Stage, progress: Progress) -> None:
        """Run one stage, even if it is finished; one that was interrupted with the same settings resumes.

        Stages that read its result must run again afterwards. Of several processes, rank 0 keeps the records. It is a
        RunError if a needed stage is missing or of another recipe, or if another process is working here.
        """
        for need in stage.needs:
            self.require(need, stage.name)
        with self.exclusive(), self._recorded(stage) if distributed.rank() == 0 else nullcontext():
            stage.run(self, self._kept(stage, progress))
            distributed.barrier()

    def _kept(self, stage: Stage, progress: Progress) -> Progress:
        """Return a function that reports progress, and keeps it for `working_on` about once a second."""
        kept, start = -math.inf, time.monotonic()

        def keep(done: int, total: int, message: str) -> None:
            nonlocal kept
            if distributed.rank() == 0 and time.monotonic() - kept >= _SECONDS_KEPT:
                kept = time.monotonic()
                about = {"stage": stage.name, "done": done, "total": total, "message": message, "time": time.time()}
                write_json(self.path(_PROGRESS), about | {"seconds": round(kept - start, 2)})

        def report(done: int, total: int, message: str) -> None:
            progress(done, total, message)
            keep(done, total, message)

        keep(0, 0, "begins")
        return report

    def working_on(self) -> dict[str, Any] | None:
        """Return what a process last said of the stage that it is at, else None.

        That is `stage`, `done`, `total`, `message`, `time`, and the `seconds` that it has worked on it.
        """
        with suppress(OSError, ValueError):
            about: dict[str, Any] = read_json(self.path(_PROGRESS))
            return about
        return None

    @contextmanager
    def _recorded(self, stage: Stage) -> Iterator[None]:
        """Record that a stage starts and, at the end, how long it took and whether it finished."""
        fingerprint, record = self.fingerprint(stage), self.records().get(stage.name, {})
        if stage.expensive:
            self.check_unchanged(stage)
        same = record.get("fingerprint") == fingerprint
        resumes = same and (stage.expensive or not record["finished"])
        seconds = float(record["seconds"]) if resumes else 0.0
        killed = self.working_on() or {}  # a process that ends says no more what it works on
        seconds += float(killed.get("seconds", 0.0)) if resumes and killed.get("stage") == stage.name else 0.0
        self.begin()
        for path in (path for pattern in stage.partial if record and not same for path in self.folder.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._record(stage, fingerprint, seconds, None)
        start, finished = time.monotonic(), None
        try:
            yield
            finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        finally:
            self._record(stage, fingerprint, seconds + time.monotonic() - start, finished)
            self.path(_PROGRESS).unlink(missing_ok=True)

    def records(self) -> dict[str, dict[str, Any]]:
        """Return what `stages.json` says of each stage, in their order: fingerprint, seconds, finished."""
        records: dict[str, dict[str, Any]] = self.read_json("stages.json") if self.path("stages.json").exists() else {}
        return {name: records[name] for name in (*all_stages(), *records) if name in records}

    def _record(self, stage: Stage, fingerprint: str, seconds: float, finished: str | None) -> None:
        record = {"fingerprint": fingerprint, "seconds": round(seconds, 2), "finished": finished}
        if not stage.expensive:  # an expensive result comes out the same
            for folder in self.affected():
                folder.forget(readers(stage))
        write_json(self.path("stages.json"), self.records() | {stage.name: record})

    def forget(self, names: Iterable[str]) -> None:
        """Remove the records of stages, so that they run again."""
        records, gone = self.records(), set(names)
        if gone & records.keys():
            write_json(self.path("stages.json"), {name: records[name] for name in records.keys() - gone})
