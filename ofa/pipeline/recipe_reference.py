"""Every key of a recipe with its type, default and meaning, read from the sections' classes."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, NamedTuple, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from ofa.core.config import Config
from ofa.pipeline.recipe import Recipe

_PAGE = """# Recipe reference

Written by `ofa recipes --markdown`. `a.b` is key `b` in section `a`; `a[].b` is key `b` of each item of list `a`. A key
without a default is required.

| key | type | default | meaning |
| --- | --- | --- | --- |
"""


class Key(NamedTuple):
    """A key of a recipe: its path, type, default and meaning, all as text."""

    key: str
    type: str
    default: str
    meaning: str


def keys(section: type[Config] = Recipe, prefix: str = "") -> Iterator[Key]:
    """Yield all keys of a section, in the order of the file."""
    for name, field in section.model_fields.items():
        path, inner, kinds = f"{prefix}{name}", _section(field.annotation), _strategies(field.annotation)
        doc = field.description or (kinds[0] if kinds else inner or Config).__doc__ or ""
        if kinds:
            yield Key(path, "list of sections", "", _one_line(doc))
            yield from _strategy_keys(kinds, f"{path}[].")
            continue
        is_list = get_origin(field.annotation) is list
        has_default = inner is None or not (inner is field.annotation or is_list)
        yield Key(path, _type(field.annotation), _default(field) if has_default else "", _one_line(doc))
        if inner is not None:
            yield from keys(inner, f"{path}[]." if is_list else f"{path}.")


def markdown() -> str:
    """Return the reference page `docs/recipes.md`."""
    rows = (f"| `{k.key}` | {k.type.replace('|', 'or')} | {k.default} | {k.meaning} |\n" for k in keys())
    return _PAGE + "".join(rows)


def _strategy_keys(kinds: list[type[Config]], prefix: str) -> Iterator[Key]:
    """Yield the keys of sections told apart by `strategy`: its values, what all have, then what each has of its own."""
    names = [str(get_args(kind.model_fields["strategy"].annotation)[0]) for kind in kinds]
    meanings = [f"`{name}`: {(kind.__doc__ or '').splitlines()[0]}" for name, kind in zip(names, kinds, strict=True)]
    yield Key(f"{prefix}strategy", " | ".join(map(repr, names)), "", " ".join(meanings))
    shared = set.intersection(*(set(kind.model_fields) for kind in kinds))
    yield from (key for key in keys(kinds[0], prefix) if key.key.removeprefix(prefix) in shared - {"strategy"})
    for name, kind in zip(names, kinds, strict=True):
        for key in keys(kind, prefix):
            if key.key.removeprefix(prefix) not in shared:
                yield key._replace(meaning=f"Only `{name}`. {key.meaning}")


def _strategies(annotation: Any) -> list[type[Config]]:
    """Return the kinds of section in a list of sections told apart by a key; none if it is no such list."""
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
    if origin in (types.UnionType, Union):
        return " | ".join(_type(kind) for kind in arguments)
    if str(origin) == "typing.Literal":
        return " | ".join(repr(value) for value in arguments)
    if str(origin) == "typing.Annotated" or hasattr(annotation, "__metadata__"):
        return _type(arguments[0])
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(_type(kind) for kind in arguments)}]"
    if origin is dict:
        return "mapping"
    names = {"Path": "path", "str": "text", "NoneType": "null"}
    return names.get(str(annotation.__name__), str(annotation.__name__))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True)
    return "null" if value is None else f"{list(value) if isinstance(value, tuple) else value}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
