import datetime
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import ofa
from ofa.cost.slots import distinct_blocks
from ofa.cost.table import LatencyTable, profile
from ofa.device import Timing
from ofa.errors import TableError

OVERHEAD_MS = 0.05


class Pretend:
    """A device whose timings follow from the model: the overhead and a microsecond per 1000 parameters."""

    name = "pretend"

    def __init__(self):
        self.description = {"device": "pretend", "threads": 1}
        self.models = []

    def measure(self, models, on_progress=lambda done, total: None):
        self.models = list(models)
        on_progress(1, 1)
        return [Timing(self.milliseconds(module, shape), 0.001, 7) for module, shape in models]

    def milliseconds(self, module, shape):
        assert not module.training
        return OVERHEAD_MS + sum(p.numel() for p in module.parameters()) * 1e-6 * shape[-1]


@pytest.fixture(scope="module")
def device():
    return Pretend()


@pytest.fixture(scope="module")
def table(tiny, device):
    return profile(tiny, device, np.random.default_rng(0), n_checks=5)


@pytest.fixture
def path(table, tmp_path):
    table.save(tmp_path / "table.json")
    return tmp_path / "table.json"


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def rows(family, n=50):
    return family.space.sample(n, np.random.default_rng(3))


def test_a_profile_has_a_row_for_every_block_and_the_overhead(tiny, table, device):
    wanted = {(repr(block), size): block for block, size in distinct_blocks(tiny)}
    assert table.rows.keys() == wanted.keys()
    for (text, size), timing in table.rows.items():
        module = wanted[text, size].build()
        assert timing.median_ms == device.milliseconds(module.eval(), wanted[text, size].input_shape(size))
    assert table.overhead == Timing(OVERHEAD_MS, 0.001, 7)
    assert table.device == device.description
    assert datetime.datetime.fromisoformat(table.date).tzinfo is not None


def test_checks_are_whole_networks_with_both_ends(tiny, table, device):
    archs = [check.arch for check in table.checks]
    assert archs[:2] == [tiny.space.smallest, tiny.space.largest]
    assert len(archs) == 5
    for check in table.checks:
        network = tiny.build(check.arch).eval()
        assert check.timing.median_ms == device.milliseconds(network, tiny.input_shape(check.arch))
    assert len(device.models) == 1 + len(table.rows) + 5
    module, shape = device.models[-4]
    assert module(torch.zeros(2, *shape)).shape == (2, 10)


def test_profiling_is_repeatable_and_leaves_the_generator(tiny, table):
    before, calls = torch.get_rng_state(), []
    again = profile(tiny, Pretend(), np.random.default_rng(0), 5, lambda *progress: calls.append(progress))
    assert again.checks == table.checks
    assert again.rows == table.rows
    assert torch.equal(torch.get_rng_state(), before)
    assert calls == [(1, 1)]


def test_a_prediction_is_the_overhead_and_what_each_block_adds(tiny, table):
    predicted = table(rows(tiny))
    for row, milliseconds in zip(rows(tiny), predicted, strict=True):
        resolution = int(tiny.space.decode(row)["resolution"])
        timings = [
            table.rows[repr(block), slot.size(resolution)] for slot, block in tiny.blocks(row) if block is not None
        ]
        plain = OVERHEAD_MS + sum(max(t.median_ms - OVERHEAD_MS, 0) for t in timings)
        assert milliseconds == pytest.approx(plain, rel=1e-12)
    assert len(set(predicted)) > 10


def test_blocks_faster_than_the_overhead_add_nothing(tiny, table):
    slow = replace(table, overhead=Timing(1e6, 0.0, 1))
    assert slow(rows(tiny)).tolist() == [1e6] * 50


def test_a_saved_table_predicts_the_same(tiny, table, path):
    for loaded in (LatencyTable.load(path), LatencyTable.load(path, tiny)):
        assert np.array_equal(loaded(rows(tiny)), table(rows(tiny)))
        assert loaded.checks == table.checks
        assert (dict(loaded.device), loaded.date, loaded.overhead) == (table.device, table.date, table.overhead)
        assert loaded.family.options == tiny.options
    assert list(path.parent.iterdir()) == [path]


def test_the_file_has_the_documented_keys(path):
    content = json.loads(path.read_text())
    assert list(content) == ["format", "version", "family", "device", "date", "overhead", "rows", "checks"]
    assert list(content["rows"][0]) == ["block", "size", "median_ms", "spread_ms", "repeats"]
    assert list(content["checks"][0]) == ["arch", "median_ms", "spread_ms", "repeats"]


def test_a_block_without_a_row(tiny, path):
    edit(path, lambda content: content["rows"].pop(0))
    with pytest.raises(TableError, match=r"table of 'pretend' has no row for ConvNorm\(.*\) at 16 pixels; profile"):
        LatencyTable.load(path)(rows(tiny))


def test_a_table_of_another_family(path):
    with pytest.raises(TableError, match="is a table of family 'small_mobilenet_v3', not of 'ofa_mobilenet_v3'"):
        LatencyTable.load(path, ofa.family("ofa_mobilenet_v3"))


def test_a_family_of_other_options_misses_rows(path):
    wider = ofa.family("small_mobilenet_v3", in_channels=1, resolutions=[16], width_mult=1.0)
    with pytest.raises(TableError, match="has no row for"):
        LatencyTable.load(path, wider)(rows(wider))


def without(key):
    return lambda content: content.pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(version=2), "is ofa-latency-table version 2, not ofa-latency-table 1"),
        (lambda content: content.update(format="table"), "is table version 1"),
        *(
            (without(key), "is not a readable latency table")
            for key in ("format", "family", "rows", "overhead", "date")
        ),
        (lambda content: content["rows"][3].pop("size"), "is not a readable latency table"),
        (lambda content: content["rows"][3].update(unit="s"), "is not a readable latency table"),
        (lambda content: content["rows"][3].update(median_ms="1"), "is not a readable latency table"),
        (lambda content: content["rows"][3].update(median_ms=None), "is not a readable latency table"),
        (lambda content: content["overhead"].update(median_ms=float("nan")), "is not a readable latency table"),
        (lambda content: content["checks"].append(3), "is not a readable latency table"),
        (lambda content: content.update(rows=3), "is not a readable latency table"),
    ],
)
def test_wrong_tables(path, change, message):
    edit(path, change)
    with pytest.raises(TableError, match=message) as caught:
        LatencyTable.load(path)
    assert str(path) in str(caught.value)


def test_damaged_or_missing_tables(path):
    whole = path.read_bytes()
    for content in (b"", whole[:-2], whole[: len(whole) // 2], b"[]", b"null", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(TableError, match=r"is not a readable latency table .*; profile the device again"):
            LatencyTable.load(path)
    with pytest.raises(TableError, match=r"nowhere\.json is not a readable"):
        LatencyTable.load(path.with_name("nowhere.json"))
