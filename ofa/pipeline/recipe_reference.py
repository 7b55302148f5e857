"""Every key of a recipe with its type, default and meaning, read off the sections themselves."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from ofa.core.config import Config
from ofa.pipeline.recipe import Recipe


def keys(section: type[Config] = Recipe, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Path, type, default and meaning of each key, in the order of the file."""
    for name, field in section.model_fields.items():
        inner = _section(field.annotation)
        kinds = _strategies(field.annotation)
        if kinds:
            yield (
                f"{prefix}{name}",
                "list of sections",
                "",
                " ".join((field.description or kinds[0].__doc__ or "").split()),
            )
            yield from _of_strategies(kinds, f"{prefix}{name}[].")
            continue
        meaning = " ".join((field.description or (inner.__doc__ if inner else "") or "").split())
        only_section = inner is field.annotation or get_origin(field.annotation) is list
        yield f"{prefix}{name}", _type(field.annotation), "" if inner and only_section else _default(field), meaning
        if inner is not None:
            yield from keys(inner, f"{prefix}{name}{'[]' if get_origin(field.annotation) is list else ''}.")


def _of_strategies(kinds: list[type[Config]], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """Keys of sections told apart by `strategy`: what it may be, what all have, then what each has of its own."""
    names = [str(get_args(kind.model_fields["strategy"].annotation)[0]) for kind in kinds]
    meanings = [f"`{name}`: {(kind.__doc__ or '').splitlines()[0]}" for name, kind in zip(names, kinds, strict=True)]
    yield f"{prefix}strategy", " | ".join(map(repr, names)), "", " ".join(meanings)
    shared = set.intersection(*(set(kind.model_fields) for kind in kinds))
    yield from (key for key in keys(kinds[0], prefix) if key[0].removeprefix(prefix) in shared - {"strategy"})
    for name, kind in zip(names, kinds, strict=True):
        for path, type_, default, meaning in keys(kind, prefix):
            if path.removeprefix(prefix) not in shared:
                yield path, type_, default, f"Of `{name}`. {meaning}"


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


def _strategies(annotation: Any) -> list[type[Config]]:
    """The kinds of section in a list of sections told apart by a key; none if it is no such list."""
    if get_origin(annotation) is not list:
        return []
    union = get_args(get_args(annotation)[0])
    return [kind for kind in get_args(union[0]) if issubclass(kind, Config)] if union else []


def _section(annotation: Any) -> type[Config] | None:
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Config):
            return kind
    return None


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return "section"
    if origin is list and _section(annotation) is not None:
        return "list of sections"
    if origin in (types.UnionType, Union):
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
