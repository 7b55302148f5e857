"""Every numeric key of a recipe with every kind of value: refused with one line, or it works."""

import math
import types
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
import yaml

from ofa.core.config import Config
from ofa.core.errors import OfaError
from ofa.pipeline.recipe import Recipe, TargetConfig
from ofa.pipeline.recipe_file import validate
from ofa.pipeline.run import Run
from ofa.pipeline.stage import all_stages

VALUES = (0, 1, -1, math.nan, math.inf, -math.inf, 10**30, 1e300, True, "1", [1])
TEACHER = {"name": "timm:test_vit", "weights": "pretrained"}


def leaves(annotation):
    """The types that a key may have, without those of lists' items."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return leaves(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [leaf for kind in get_args(annotation) for leaf in leaves(kind)]
    return [annotation]


def numeric_keys(section, path=()):
    """The paths of all numeric keys of a section, items of lists and tuples included."""
    for name, field in section.model_fields.items():
        for leaf in leaves(field.annotation):
            origin, arguments = get_origin(leaf), get_args(leaf)
            if leaf in (int, float):
                yield (*path, name)
            elif isinstance(leaf, type) and issubclass(leaf, Config):
                yield from numeric_keys(leaf, (*path, name))
            elif origin in (list, tuple) and set(leaves(arguments[0])) & {int, float}:
                yield (*path, name, 0)
            elif origin is list and get_origin(arguments[0]) is Annotated:
                for kind in leaves(arguments[0]):
                    yield from numeric_keys(kind, (*path, name, kind))
            elif origin is list and isinstance(arguments[0], type) and issubclass(arguments[0], Config):
                yield from numeric_keys(arguments[0], (*path, name, arguments[0]))


KEYS = sorted(set(numeric_keys(Recipe)), key=str)


def changed(content: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A recipe's content with one key set; sections and lists on the way are made."""
    content = yaml.safe_load(yaml.safe_dump(content))
    inner = content
    for i, part in enumerate(path[:-1]):
        following = path[i + 1]
        if following is TargetConfig:
            inner[part] = [{"name": "local"}]
            inner = inner[part][0]
        elif isinstance(following, type):  # a phase of some strategy
            (strategy,) = get_args(following.model_fields["strategy"].annotation)
            inner[part] = [{"strategy": "full", "epochs": 1}, {"strategy": strategy, "epochs": 1}]
            inner = inner[part][1]
        elif isinstance(part, type):
            continue
        elif following == 0:
            inner[part] = inner.get(part) or [0.9, 1.0]
            inner = inner[part]
        else:
            default = {"teacher": dict(TEACHER), "power": {"busy_w": 5.0}}.get(part, {})
            inner[part] = inner[part] if isinstance(inner.get(part), dict) else default
            inner = inner[part]
    inner[path[-1]] = value
    return content


def shown(path):
    return ".".join(part.__name__ if isinstance(part, type) else str(part) for part in path)


def test_all_sections_are_walked():
    names = [shown(path) for path in KEYS]
    assert len(names) > 70
    for name in (
        "seed",
        "train.lr",
        "train.phases.Uniform.subnets",
        "targets.TargetConfig.batch",
        "data.augment.scale.0",
    ):
        assert name in names


def attempt(function, *arguments):
    """The result of a function and the message of the error that it refused with."""
    try:
        return function(*arguments), None
    except OfaError as error:
        return None, str(error)


@pytest.mark.parametrize("path", KEYS, ids=shown)
def test_a_numeric_key_is_refused_with_one_line_or_taken(tiny_recipe_text, path):
    for value in VALUES:
        content = changed(yaml.safe_load(tiny_recipe_text), path, value)
        recipe, message = attempt(validate, Recipe, content, "recipe.yaml")
        if recipe is None:
            assert "\n" not in message
            assert str(path[-1]) in message or str(path[-2]) in message
        else:
            assert type(value) in (int, float)
            assert math.isfinite(value)
            assert Recipe.model_validate(yaml.safe_load(recipe.to_yaml())) == recipe


def run_all(content, folder):
    run = Run(validate(Recipe, content, "recipe.yaml"), folder)
    run.check_inputs()
    for stage in all_stages().values():
        run.execute(stage, lambda done, total, message: None)


@pytest.mark.slow
@pytest.mark.parametrize("value", [0, 1, 10**30, 1e300], ids=repr)
@pytest.mark.parametrize("path", KEYS, ids=shown)
def test_what_is_taken_works_or_is_refused_with_one_line(tiny_recipe_text, tmp_path, path, value):
    content = changed(yaml.safe_load(tiny_recipe_text), path, value)
    _, message = attempt(run_all, content, tmp_path / "run")
    assert message is None or "\n" not in message
