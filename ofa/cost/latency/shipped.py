"""Latency tables that packages ship, found through the entry-point group `ofa.latency_tables`."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

from ofa.core.errors import TableError


def shipped_tables() -> dict[Path, dict[str, Any]]:
    """Return a summary of each shipped latency table by its path: the files `*/*.json` of the group's packages.

    Its keys are `table` (the folder), `family`, `rows` (their number), `date`, and those of the device's description.

    Raises:
        TableError: a file is not a latency table.
    """
    packages = [Path(str(files(point.load()))) for point in sorted(entry_points(group="ofa.latency_tables"))]
    summaries = {}
    for path in (path for package in packages for path in sorted(package.glob("*/*.json"))):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            summaries[path] = {
                "table": path.parent.name,
                "family": content["family"]["name"],
                "rows": len(content["rows"]),
                "date": content["date"][:10],
                "device": content["device"]["device"],
                **content["device"],
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TableError(f"{path} is not a readable latency table ({error!r}); reinstall its package") from error
    return summaries
