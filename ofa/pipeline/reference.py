"""Every key of a recipe with its type, default and meaning, read off the sections themselves."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from ofa.config import Config
from ofa.pipeline.recipe import Recipe


def keys(section: type[Config] = Recipe, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Path, type, default and meaning of each key, in the order of the file."""
    for name, field in section.model_fields.items():
        inner = _section(field.annotation)
        meaning = " ".join((field.description or (inner.__doc__ if inner else "") or "").split())
        yield f"{prefix}{name}", _type(field.annotation), "" if inner else _default(field), meaning
        if inner is not None:
            yield from keys(inner, f"{prefix}{name}{'[]' if get_origin(field.annotation) is list else ''}.")


def markdown() -> str:
    """The reference page `docs/recipes.md`."""
    lines = [
        "# Recipe reference",
        "",
        "Made by `ofa recipes --markdown`. `a.b` is key `b` in section `a`; `a[].b` is key `b` of each item of list",
        "`a`. A key without a default must be given.",
        "",
        "| key | type | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        "| " + " | ".join((f"`{key}`", kind.replace("|", "or"), default, meaning)) + " |"
        for key, kind, default, meaning in keys()
    ]
    return "\n".join(lines) + "\n"


def _section(annotation: Any) -> type[Config] | None:
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Config):
            return kind
    return None


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if _section(annotation) is not None:
        return "list of sections" if origin is list else "section"
    if origin is types.UnionType:
        return " | ".join(_type(kind) for kind in arguments)
    if str(origin) == "typing.Literal":
        return " | ".join(repr(value) for value in arguments)
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(_type(kind) for kind in arguments)}]"
    if origin is dict:
        return "mapping"
    if str(origin) == "typing.Annotated":
        return _type(arguments[0])
    return (
        "null"
        if annotation is type(None)
        else {"Path": "path", "str": "text"}.get(annotation.__name__, annotation.__name__)
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True)
    return "null" if value is None else f"{list(value) if isinstance(value, tuple) else value}"
