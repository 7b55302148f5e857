"""Families, one file each, their blocks, and the recipes that train them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from supernets.timm_models import timm_family as timm_family

__all__ = ["timm_family"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'supernets' has no attribute {name!r}")
    from supernets.timm_models import timm_family  # on first use: finding recipes must not import timm

    return timm_family
