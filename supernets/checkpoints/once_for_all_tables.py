"""Latency tables that once-for-all published: one YAML file per resolution, such as `224_lookup_table.yaml`.

A file maps `type-input:HxWxC-output:HxWxC[-expand:-kernel:-stride:-idskip:[-se:-hs:]]` to `{count, mean, var or std}`
of a layer in milliseconds. `expand` is the number of hidden channels in MobileNetV3's tables, the ratio in Proxyless's.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ofa import Family, LatencyTable
from ofa.core.errors import TableError
from ofa.cost.block_table import distinct_blocks
from ofa.devices.device import Timing
from ofa.supernet.block import Block
from supernets.blocks.convolutions import ConvNorm, Head, MBConv, scaled


def read(folder: Path, family: Family) -> LatencyTable:
    """Return the latency table of a family's blocks, without measured networks, from a folder of YAML files.

    The family is `ofa_mobilenet_v3` or `ofa_proxyless`, with resolutions that the folder has files for.

    Raises:
        TableError: files are missing or broken, or belong to another family or width.
    """
    ratios = family.name == "ofa_proxyless"
    sums = {(repr(block), size): list(keys(block, size, ratios)) for block, size in distinct_blocks(family)}
    entries: dict[str, Any] = {}
    for resolution in family.resolutions:
        path = folder / f"{resolution}_lookup_table.yaml"
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise TableError(f"{path} cannot be read ({error}); give resolutions that have a file") from error
        if not isinstance(content, dict):
            raise TableError(f"{path} holds no entries; give a lookup table of once-for-all")
        entries |= content
    rows = {row: _timing(entries, names) for row, names in sums.items()}
    device = {"device": "once-for-all", "files": folder.name, "precision": "unknown"}
    overhead = Timing(0.0, 0.0, 1)
    return LatencyTable(
        measured=family, family=family, device=device, date="", overhead=overhead, rows=rows, networks={}, checks={}
    )


def keys(block: Block, size: int, ratios: bool) -> Iterator[str]:
    """Yield the keys of the entries whose sum is a block's latency for an input of `size` by `size` pixels.

    `ratios`: whether `expand` is the ratio or the number of hidden channels.
    """
    if isinstance(block, ConvNorm):
        yield _key("Conv", size, block.in_channels, -(-size // block.stride), block.out_channels)
    elif isinstance(block, MBConv):
        expand = int(block.expand) if ratios else scaled(block.in_channels * block.expand)
        skip = block.residual and block.stride == 1 and block.in_channels == block.out_channels
        fields = {"expand": expand, "kernel": block.kernel, "stride": block.stride, "idskip": int(skip)}
        fields |= {} if ratios else {"se": int(block.se), "hs": int(block.act == "hard_swish")}
        yield _key("expanded_conv", size, block.in_channels, -(-size // block.stride), block.out_channels, **fields)
    elif isinstance(block, Head):
        conv = block.conv_channels or block.in_channels
        yield _key("Conv_1", size, block.in_channels, size, conv)
        if block.hidden is None:
            yield f"Logits-input:{size}x{size}x{conv}-output:{block.num_classes}"
        else:
            yield _key("AvgPool2D", size, conv, 1, conv)
            yield _key("Conv_2", 1, conv, 1, block.hidden)
            yield f"Logits-input:1x1x{block.hidden}-output:{block.num_classes}"
    else:
        raise TableError(f"once-for-all has no tables of {block}; read them for ofa_mobilenet_v3 or ofa_proxyless")


def _key(kind: str, size: int, channels: int, out_size: int, out_channels: int, **fields: int) -> str:
    shapes = f"{kind}-input:{size}x{size}x{channels}-output:{out_size}x{out_size}x{out_channels}"
    return "-".join([shapes, *(f"{name}:{value}" for name, value in fields.items())])


def _timing(entries: Mapping[str, Any], keys: Iterable[str]) -> Timing:
    """Return the sum of entries, with the variance of their sum and the smallest count."""
    mean, variance, count = 0.0, 0.0, 10**9
    for key in keys:
        try:
            entry = entries[key]
            mean += float(entry["mean"])
            variance += float(entry.get("var", float(entry.get("std", 0.0)) ** 2))
            count = min(count, int(entry.get("count", 1)))
        except KeyError as error:
            raise TableError(
                f"the tables have no {error} for {key!r}; give those of this family and width, from a full download"
            ) from error
        except (TypeError, ValueError, AttributeError) as error:
            raise TableError(f"the entry {key!r} is not a timing ({error}); download the tables again") from error
    return Timing(mean, 1.349 * math.sqrt(variance), count)  # the interquartile range of a normal distribution
