"""The file that keeps the bursts of an unfinished profile, from which an interrupted one resumes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ofa.core.errors import TableError
from ofa.core.files import write_json
from ofa.devices.estimator import Burst, Samples

FORMAT, VERSION = "ofa-latency-samples", 2


class SampleFile:
    """Bursts of some models, by name, and the file that keeps them.

    Args:
        path: path of the file, which may not exist yet; None keeps nothing.
        subject: what is measured (family and device), as JSON values.

    Raises:
        TableError: the file is unreadable, or its bursts are of something else.
    """

    def __init__(self, path: Path | None, subject: Mapping[str, Any]) -> None:
        self._path, self._header = path, {"format": FORMAT, "version": VERSION, **subject}
        self.samples: Samples = _read(path, self._header) if path is not None and path.exists() else {}
        self._n_saved = 0

    def save(self) -> None:
        """Write the bursts, whole or not at all, if there are new ones."""
        n_bursts = sum(map(len, self.samples.values()))
        if self._path is not None and n_bursts > self._n_saved:
            write_json(self._path, self._header | {"samples": self.samples})
            self._n_saved = n_bursts


def _read(path: Path, header: Mapping[str, Any]) -> Samples:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if any(content[key] != json.loads(json.dumps(value)) for key, value in header.items()):
            raise TableError(f"{path} has samples of another family or device; remove it to start again")
        return {
            model: [Burst(float(run_ms), float(reference_ms), int(session)) for run_ms, reference_ms, session in bursts]
            for model, bursts in content["samples"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TableError(f"{path} is not a readable file of samples ({error!r}); remove it to start again") from error
