"""Choices that follow others, as width follows depth in CompOFA (arXiv 2104.12642)."""

import re
from collections.abc import Mapping
from dataclasses import replace

from ofa.core.errors import SpaceError
from ofa.space.search_space import SearchSpace


def couple(space: SearchSpace, pairs: Mapping[str, str]) -> SearchSpace:
    """Return the space in which some choices are no longer free but follow others.

    `pairs` leads from a pattern of the choices that follow to the name of the choice that they follow, such as
    `{"stage*.block*.expand": "stage*.depth"}`: each `*` of the second stands for what that of the first matched, in
    order. The first pattern that matches a choice holds; no choice follows itself.

    Raises:
        SpaceError: a pattern matches no choice, leads to none or to a later one, or to one that follows another.
    """
    follows: dict[str, str] = {}
    for pattern, followed in pairs.items():
        try:
            follows = _expand(space, pattern, followed) | follows
        except SpaceError as error:
            raise SpaceError(f"cannot couple {pattern!r} to {followed!r}: {error}") from error
    choices = [replace(choice, follows=follows.get(choice.name, choice.follows)) for choice in space.choices]
    return SearchSpace(choices)


def _expand(space: SearchSpace, pattern: str, followed: str) -> dict[str, str]:
    """Return each choice that a pattern matches with the earlier choice that it follows."""
    regex = "(.*)".join(map(re.escape, pattern.split("*")))
    matches = [match for name in space.names if (match := re.fullmatch(regex, name))]
    if not matches:
        space.column(pattern)  # raises
    follows = {}
    for match in matches:
        follower, leader = match[0], followed
        for part in match.groups():
            leader = leader.replace("*", part, 1)
        if space.column(leader) > space.column(follower):
            raise SpaceError(f"{leader!r} comes after {follower!r}; let {leader!r} follow {follower!r} instead")
        if leader != follower:
            follows[follower] = leader
    return follows
