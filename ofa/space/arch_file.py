"""JSON files that list archs."""

from pathlib import Path

from ofa.core.errors import SpaceError
from ofa.core.files import read_json
from ofa.space.arch import Arch
from ofa.space.search_space import SearchSpace


def read_archs(path: Path, space: SearchSpace) -> list[Arch]:
    """Read a JSON list of archs, or of objects with the key `arch`, and check each against a space.

    The files `front.json` and `samples.json` of a run can be read as they are.

    Raises:
        SpaceError: the file is unreadable, holds no such list, or lists an arch outside the space.
    """
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise SpaceError(f"cannot read archs from {path}: {error}") from error
    if isinstance(content, dict):
        content = content.get("front", content.get("samples"))
    archs = []
    for entry in content if isinstance(content, list) else [None]:
        values = entry.get("arch", entry) if isinstance(entry, dict) else None
        if not isinstance(values, dict):
            raise SpaceError(f"{path} must hold a JSON list of archs (objects from choice name to value)")
        archs.append(space.arch(values))
    return archs
