"""Values that several commands take."""

from __future__ import annotations

import json
from typing import Any

from ofa.core.errors import RecipeError


def json_object(name: str, text: str) -> dict[str, Any]:
    """The object in an option's text.

    Raises:
        RecipeError: it is not JSON, or not an object.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise RecipeError(f'{name} {text!r} is not JSON ({error}); give an object such as {{"threads": 2}}') from error
    if not isinstance(value, dict):
        raise RecipeError(f'{name} {text!r} is not a JSON object; give one such as {{"threads": 2}}')
    return value
