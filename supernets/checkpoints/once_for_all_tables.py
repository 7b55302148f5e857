"""Reads the latency tables that once-for-all published: one YAML file per resolution, `224_lookup_table.yaml`.

Each holds `{type-input:HxWxC-output:HxWxC[-expand:-kernel:-stride:-idskip:[-se:-hs:]]: {count, mean, ...}}`, in
milliseconds of a layer on one device. MobileNetV3's tables have the hidden channels as `expand`, and four entries for
what is one head here; Proxyless's have the ratio, and two entries for the head.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ofa import Family, LatencyTable
from ofa.core.errors import TableError
from ofa.cost.block_table import distinct_blocks
from ofa.devices.device import Timing
from ofa.supernet.block import Block
from supernets.blocks.convolutions import ConvNorm, Head, MBConv, scaled

_NAME = "{}_lookup_table.yaml"


_NO_FACTS: Mapping[str, int] = {}


def read(folder: Path, family: Family) -> LatencyTable:
    """A table of the blocks at all resolutions that the folder has files for; without measured networks.

    Args:
        folder: of the YAML files.
        family: `ofa_mobilenet_v3` or `ofa_proxyless`, with resolutions that are among the files'.

    Raises:
        TableError: files are missing or broken, or they are of another family or width.
    """
    blocks = list(distinct_blocks(family))
    if others := [block for block, _ in blocks if not isinstance(block, ConvNorm | MBConv | Head)]:
        raise TableError(f"once-for-all has no tables of {others[0]}; read them for ofa_mobilenet_v3 or ofa_proxyless")
    found: dict[str, Any] = {}
    for resolution in family.resolutions:
        path = folder / _NAME.format(resolution)
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise TableError(
                f"{path} cannot be read ({error}); give the family the resolutions that there are"
            ) from error
        if not isinstance(content, dict):
            raise TableError(f"{path} does not hold keys and values; it is no table of once-for-all")
        found |= content
    ratios = family.name == "ofa_proxyless"
    rows = {(repr(block), size): _timing(found, keys(block, size, ratios)) for block, size in blocks}
    device = {"device": "once-for-all", "files": folder.name, "precision": "unknown"}
    overhead = Timing(0.0, 0.0, 1)
    return LatencyTable(
        measured=family, family=family, device=device, date="", overhead=overhead, rows=rows, networks={}, checks={}
    )


def keys(block: Block, size: int, ratios: bool) -> Iterator[str]:
    """The entries that a block is the sum of.

    Args:
        block: of one of the families that there are tables of.
        size: of its input in pixels.
        ratios: whether `expand` is the ratio, as in Proxyless's tables, or the hidden channels.
    """
    if isinstance(block, ConvNorm):
        yield _key("Conv", size, block.in_channels, -(-size // block.stride), block.out_channels)
    elif isinstance(block, MBConv):
        expand = int(block.expand) if ratios else scaled(block.in_channels * block.expand)
        facts = {"expand": expand, "kernel": block.kernel, "stride": block.stride, "idskip": int(_skips(block))}
        facts |= {} if ratios else {"se": int(block.se), "hs": int(block.act == "hard_swish")}
        yield _key("expanded_conv", size, block.in_channels, -(-size // block.stride), block.out_channels, facts)
    elif isinstance(block, Head):
        yield from _head_keys(block, size)
    else:
        raise TableError(f"once-for-all has no tables of {block}; read them for ofa_mobilenet_v3 or ofa_proxyless")


def _head_keys(block: Head, size: int) -> Iterator[str]:
    conv = block.conv_channels or block.in_channels
    yield _key("Conv_1", size, block.in_channels, size, conv)
    if block.hidden is None:
        yield f"Logits-input:{size}x{size}x{conv}-output:{block.num_classes}"
    else:
        yield _key("AvgPool2D", size, conv, 1, conv)
        yield _key("Conv_2", 1, conv, 1, block.hidden)
        yield f"Logits-input:1x1x{block.hidden}-output:{block.num_classes}"


def _key(kind: str, size: int, channels: int, out: int, out_channels: int, facts: Mapping[str, int] = _NO_FACTS) -> str:
    shapes = f"{kind}-input:{size}x{size}x{channels}-output:{out}x{out}x{out_channels}"
    return "-".join([shapes, *(f"{name}:{value}" for name, value in facts.items())])


def _skips(block: MBConv) -> bool:
    return block.residual and block.stride == 1 and block.in_channels == block.out_channels


def _timing(entries: Mapping[str, Any], keys: Iterator[str]) -> Timing:
    """The sum of some entries."""
    mean, variance, count = 0.0, 0.0, 10**9
    for key in keys:
        try:
            entry = entries[key]
            mean += float(entry["mean"])
            variance += float(entry.get("var", float(entry.get("std", 0.0)) ** 2))
            count = min(count, int(entry.get("count", 1)))
        except KeyError as error:
            raise TableError(f"the tables have no {error} for {key!r}; are they of this family and width?") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise TableError(f"the entry {key!r} is not a timing ({error}); fetch the tables again") from error
    return Timing(mean, 1.349 * math.sqrt(variance), count)
