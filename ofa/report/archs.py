"""Archs as a person reads them: grouped by stage, a few characters per block."""

from collections.abc import Iterable, Mapping

from ofa.space.arch import Value


def arch_lines(arch: Mapping[str, Value]) -> list[str]:
    """Return the choices of an arch, one line per part of the network.

    Choice names are paths: `stage0.block1.kernel` belongs to block `block1` of part `stage0`. A block is a path
    under which there are only choices. Blocks are written as the shortest distinct beginnings of their choices'
    names with the values, such as `k5 e4`; all else is written in full.
    """
    owners = {name: name.rpartition(".")[0] for name in arch}
    blocks = {path for path in owners.values() if path} - {path.rpartition(".")[0] for path in owners.values()}
    short = _short(name.rpartition(".")[2] for name in arch if owners[name] in blocks)
    parts: dict[str, dict[str, list[str]]] = {}
    for name, value in arch.items():
        path, _, leaf = name.rpartition(".")
        if path in blocks:
            parent, _, block = path.rpartition(".")
            part = parent or f"{block.rstrip('0123456789')}s"
            parts.setdefault(part, {}).setdefault(path, []).append(f"{short[leaf]}{_number(value)}")
        else:
            text = f"{_number(value)} px" if name == "resolution" else f"{leaf} {_number(value)}"
            parts.setdefault(path, {})[name] = [text]
    texts = {part: ", ".join(" ".join(items) for items in held.values()) for part, held in parts.items()}
    return [f"{part}: {text}" if part else text for part, text in texts.items()]


def compact(arch: Mapping[str, Value]) -> str:
    """Return the lines of an arch as one, such as `24 px | stage0: depth 2, k5 e4, k3 e2 | stage1: depth 1, k3 e2`."""
    return " | ".join(arch_lines(arch))


def _short(names: Iterable[str]) -> dict[str, str]:
    """Return the shortest beginning of each name that no other name has, or the name itself."""
    every = set(names)
    return {
        name: next(
            (name[:n] for n in range(1, len(name)) if not any(o.startswith(name[:n]) for o in every - {name})), name
        )
        for name in every
    }


def _number(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
