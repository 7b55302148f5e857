"""Every key of a recipe with its type, default and meaning, read from the sections' classes."""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from ofa.core.config import Config
from ofa.pipeline.recipe import Recipe

_PAGE = """# Recipe reference

Written by `ofa recipes --markdown`. `a.b` is key `b` in section `a`; `a[].b` is key `b` of each item of list `a`. A key
without a default is required. Relative paths are relative to the working directory.

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
        path, sections = f"{prefix}{name}", _sections(field.annotation)
        docs = [field.description, *(section.__doc__ for section in sections), ""]
        meaning = " ".join(next(doc for doc in docs if doc is not None).split())
        if len(sections) > 1:
            yield Key(path, "list of sections", "", meaning)
            yield from _strategy_keys(sections, f"{path}[].")
            continue
        is_list = get_origin(field.annotation) is list
        has_default = not sections or not (sections[0] is field.annotation or is_list)
        yield Key(path, _type(field.annotation), _default(field) if has_default else "", meaning)
        for inner in sections:
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


def _sections(annotation: Any) -> list[type[Config]]:
    """Return the classes of section in a type; several if they are told apart by a key."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return "section"
    if origin in (UnionType, Union):
        return " | ".join(_type(kind) for kind in arguments)
    if origin is Literal:
        return " | ".join(repr(value) for value in arguments)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(_type(kind) for kind in arguments)}]"
    if origin is dict:
        return "mapping"
    name = str(annotation.__name__)
    return {"Path": "path", "str": "text", "NoneType": "null"}.get(name, name)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True)
    return "null" if value is None else f"{list(value) if isinstance(value, tuple) else value}"
