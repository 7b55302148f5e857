"""Families, one file each, the blocks they are made of, and the recipes that train them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from supernets.timm_models import timm_family as timm_family

__all__ = ["timm_family"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'supernets' has no attribute {name!r}")
    from supernets.timm_models import timm_family  # when first used, as recipes are found without timm

    return timm_family
