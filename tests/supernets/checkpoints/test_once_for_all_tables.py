import numpy as np
import pytest
import yaml

import ofa
from ofa.core.errors import TableError
from ofa.cost.block_table import distinct_blocks
from supernets.checkpoints import once_for_all_tables

HEADS = {
    "ofa_mobilenet_v3": [
        "Conv_1-input:4x4x160-output:4x4x960",
        "AvgPool2D-input:4x4x960-output:1x1x960",
        "Conv_2-input:1x1x960-output:1x1x1280",
        "Logits-input:1x1x1280-output:1000",
    ],
    "ofa_proxyless": ["Conv_1-input:4x4x416-output:4x4x1664", "Logits-input:4x4x1664-output:1000"],
}
OTHERS = {
    "ofa_mobilenet_v3": [
        "Conv-input:128x128x3-output:64x64x16",
        "expanded_conv-input:64x64x16-output:64x64x16-expand:16-kernel:3-stride:1-idskip:1-se:0-hs:0",
        "expanded_conv-input:64x64x16-output:32x32x24-expand:48-kernel:3-stride:2-idskip:0-se:0-hs:0",
        "expanded_conv-input:8x8x112-output:8x8x112-expand:672-kernel:7-stride:1-idskip:1-se:1-hs:1",
    ],
    "ofa_proxyless": [
        "Conv-input:128x128x3-output:64x64x40",
        "expanded_conv-input:64x64x40-output:64x64x24-expand:1-kernel:3-stride:1-idskip:0",
        "expanded_conv-input:8x8x128-output:8x8x128-expand:6-kernel:7-stride:1-idskip:1",
    ],
}


@pytest.fixture(params=HEADS)
def family(request):
    return ofa.create_family(request.param, resolutions=[128])


@pytest.fixture
def folder(family, tmp_path):
    """A folder with a table as published, in which the mean of entry i is i + 1 ms."""
    entries = {}
    for block, size in distinct_blocks(family):
        for key in once_for_all_tables.keys(block, size, family.name == "ofa_proxyless"):
            entries[key] = {"count": 30, "mean": 1.0 + len(entries), "var": 0.04}
    (tmp_path / "128_lookup_table.yaml").write_text(yaml.safe_dump(entries))
    return tmp_path


def change(folder, edit):
    path = folder / "128_lookup_table.yaml"
    entries = yaml.safe_load(path.read_text())
    edit(entries)
    path.write_text(yaml.safe_dump(entries))


def test_keys_are_those_of_once_for_all(family, folder):
    entries = yaml.safe_load((folder / "128_lookup_table.yaml").read_text())
    assert set(HEADS[family.name] + OTHERS[family.name]) <= set(entries)


def test_the_latency_of_a_network_is_the_sum_of_its_entries(family, folder):
    entries = yaml.safe_load((folder / "128_lookup_table.yaml").read_text())
    table = once_for_all_tables.read(folder, family)
    rows = family.space.sample(20, np.random.default_rng(0))
    for row, milliseconds in zip(rows, table(rows), strict=True):
        keys = [
            key
            for slot, block in family.blocks(row)
            if block is not None
            for key in once_for_all_tables.keys(block, slot.size(128), family.name == "ofa_proxyless")
        ]
        assert milliseconds == pytest.approx(sum(entries[key]["mean"] for key in keys))


def test_a_table_can_be_saved_and_loaded(family, folder, tmp_path):
    table = once_for_all_tables.read(folder, family)
    table.save(tmp_path / "table.json")
    rows = family.space.sample(20, np.random.default_rng(0))
    loaded = ofa.LatencyTable.load(tmp_path / "table.json")
    assert np.array_equal(loaded(rows), table(rows))
    head = next(timing for (block, _), timing in loaded.rows.items() if block.startswith("Head"))
    assert (head.repeats, head.spread_ms) == (30, pytest.approx(1.349 * (0.04 * len(HEADS[family.name])) ** 0.5))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda entries: entries.pop(next(iter(entries))), "give those of this family and width"),
        (lambda entries: entries[next(iter(entries))].pop("mean"), "the tables have no 'mean' for"),
        (lambda entries: entries[next(iter(entries))].update(mean="a"), "is not a timing"),
        (lambda entries: entries.update({next(iter(entries)): 3}), "is not a timing"),
    ],
)
def test_missing_or_wrong_entries_are_refused(family, folder, edit, message):
    change(folder, edit)
    with pytest.raises(TableError, match=message):
        once_for_all_tables.read(folder, family)


@pytest.mark.parametrize("content", ["", "[1]", "{", "!!python/object/apply:os.getcwd []"])
def test_files_that_are_no_tables_are_refused(family, folder, content):
    (folder / "128_lookup_table.yaml").write_text(content)
    with pytest.raises(TableError, match="128_lookup_table"):
        once_for_all_tables.read(folder, family)


def test_a_resolution_without_a_file_is_refused(family, tmp_path):
    with pytest.raises(TableError, match="give resolutions that have a file"):
        once_for_all_tables.read(tmp_path, family)


def test_other_families_are_refused(tmp_path):
    (tmp_path / "16_lookup_table.yaml").write_text("{a: {mean: 1}}")
    with pytest.raises(TableError, match="read them for ofa_mobilenet_v3 or ofa_proxyless"):
        once_for_all_tables.read(tmp_path, ofa.create_family("hybrid_small", resolutions=[16]))
