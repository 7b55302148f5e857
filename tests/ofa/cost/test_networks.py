import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ofa import Choice, Family, SearchSpace
from ofa.cost import LatencyTable, NetworkTable, load_table
from ofa.cost.networks import is_whole
from ofa.cost.table import profile
from ofa.device import Timing
from ofa.errors import TableError

CHOICES = [
    Choice("resolution", (8, 12, 16)),
    Choice("depth", (1, 2, 3, 4)),
    Choice("width", (4, 6, 8)),
    Choice("kernel", (1, 3), needs=("depth", 3)),
]


def build(arch):
    kernel = arch.get("kernel", 1)
    layers = [nn.Conv2d(arch["width"], arch["width"], kernel) for _ in range(arch["depth"])]
    return nn.Sequential(nn.Conv2d(3, arch["width"], 1), *layers)


@pytest.fixture(scope="module")
def family():
    return Family.from_builder(SearchSpace(CHOICES), build)


def milliseconds(module, shape):
    return 0.01 + 1e-6 * shape[-1] ** 2 * sum(p.numel() for p in module.parameters())


class Pretend:
    """A device whose timings follow from the model."""

    name = "pretend"
    description = {"device": "pretend", "threads": 1}  # noqa: RUF012  # a device's is an attribute

    def __init__(self):
        self.models = []

    def measure(self, models, on_progress=lambda done, total: None):
        self.models = list(models)
        on_progress(1, 1)
        assert not any(module.training for module, _ in models)
        return [Timing(milliseconds(module, shape), 0.001, 7) for module, shape in models]


def profiled(family, n_checks=10, n_networks=30, **more):
    return profile(family, Pretend(), np.random.default_rng(0), n_checks, n_networks=n_networks, **more)


@pytest.fixture(scope="module")
def table(family):
    return profiled(family)


@pytest.fixture
def path(table, tmp_path):
    table.save(tmp_path / "table.json")
    return tmp_path / "table.json"


def every(space):
    counts = [range(len(choice.values)) for choice in space.choices]
    return space.unique(np.array(np.meshgrid(*counts)).reshape(len(counts), -1).T)


def test_a_family_of_a_builder_is_measured_as_whole_networks(family, tiny, table):
    assert is_whole(family)
    assert not is_whole(tiny)
    assert isinstance(table, NetworkTable)
    archs = [check.arch for check in table.networks + table.checks]
    assert archs[:2] == [family.space.smallest, family.space.largest]
    assert (len(table.networks), len(table.checks), len(set(archs))) == (30, 10, 40)
    for check in table.networks + table.checks:
        network = family.build(check.arch).eval()
        assert check.timing.median_ms == milliseconds(network, family.input_shape(check.arch))


def test_profiling_is_repeatable_and_leaves_the_generator(family, table):
    before, calls = torch.get_rng_state(), []
    again = profiled(family, on_progress=lambda *progress: calls.append(progress))
    assert (again.networks, again.checks) == (table.networks, table.checks)
    assert torch.equal(torch.get_rng_state(), before)
    assert calls == [(1, 1)]


def test_archs_that_were_not_measured_are_predicted(family, table):
    rows = every(family.space)
    assert len(rows) == family.space.size == 54
    archs = [family.space.decode(row) for row in rows]
    true = np.array([milliseconds(family.build(arch), family.input_shape(arch)) for arch in archs])
    predicted = table(rows)
    assert predicted.shape == (54,)
    assert np.abs(predicted / true - 1).max() < 0.1
    assert np.abs(predicted / true - 1).mean() < 0.02
    assert table(rows[:0]).shape == (0,)


def test_a_prediction_is_nearer_to_the_truth_than_noisy_measurements(family, table):
    rng = np.random.default_rng(1)
    noise = 0.1 * rng.standard_normal(len(table.networks))
    noisy = tuple(
        replace(network, timing=Timing(network.timing.median_ms * math.exp(off), 0.0, 1))
        for network, off in zip(table.networks, noise, strict=True)
    )
    predicted = replace(table, networks=noisy)(family.space.rows(network.arch for network in noisy))
    true = np.array([network.timing.median_ms for network in table.networks])
    assert np.log(predicted / true).std() < 0.9 * noise.std()


def test_a_small_space_is_measured_as_far_as_it_goes():
    pair = Family.from_builder(SearchSpace([Choice("depth", (1, 2))]), lambda arch: build({"width": 4, **arch}))
    table = profiled(pair)
    assert len(table.networks) == 2
    assert table.checks == table.networks
    rows = pair.space.rows([pair.space.smallest, pair.space.largest])
    assert table(rows) == pytest.approx([check.timing.median_ms for check in table.networks], rel=0.05)


def test_a_saved_table_predicts_the_same(family, table, path):
    for loaded in (load_table(path, family), NetworkTable.load(path, family)):
        rows = every(family.space)
        assert np.array_equal(loaded(rows), table(rows))
        assert (loaded.networks, loaded.checks) == (table.networks, table.checks)
        assert (dict(loaded.device), loaded.date) == (table.device, table.date)
    assert list(path.parent.iterdir()) == [path]


def test_the_file_has_the_documented_keys(path):
    content = json.loads(path.read_text())
    assert list(content) == ["format", "version", "family", "device", "date", "networks", "checks"]
    assert (content["format"], content["version"]) == ("ofa-network-table", 1)
    assert list(content["networks"][0]) == ["arch", "median_ms", "spread_ms", "repeats"]


def test_either_kind_of_table_is_loaded_by_what_the_file_says(tiny, path, family, tmp_path):
    profile(tiny, Pretend(), np.random.default_rng(0), 2).save(tmp_path / "blocks.json")
    assert isinstance(load_table(tmp_path / "blocks.json", tiny), LatencyTable)
    assert isinstance(load_table(tmp_path / "blocks.json"), LatencyTable)
    with pytest.raises(TableError, match="is ofa-network-table version 1, not ofa-latency-table 1"):
        LatencyTable.load(path, family)
    with pytest.raises(TableError, match="is ofa-latency-table version 1, not ofa-network-table 1"):
        NetworkTable.load(tmp_path / "blocks.json", tiny)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(version=2), "is ofa-network-table version 2, not ofa-network-table 1"),
        (lambda content: content.pop("format"), "is not a readable latency table"),
        (lambda content: content.pop("networks"), "is not a readable latency table"),
        (lambda content: content.update(networks=[]), "is not a readable latency table"),
        (lambda content: content["networks"][1].update(median_ms=0.0), "is not a readable latency table"),
        (lambda content: content["networks"][1].update(unit="s"), "is not a readable latency table"),
        (lambda content: content["networks"][1]["arch"].update(width=5), r"width = 5 is not allowed.*profile the dev"),
        (lambda content: content["family"].update(name="other"), "table of family 'other', not of 'custom'; profile"),
    ],
)
def test_wrong_tables(family, path, change, message):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(TableError, match=message) as caught:
        load_table(path, family)
    assert str(path) in str(caught.value)


def test_damaged_or_missing_tables(family, path):
    whole = path.read_bytes()
    for content in (b"", whole[:-2], b"[]", b"null", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(TableError, match=r"is not a readable latency table .*; profile the device again"):
            load_table(path, family)
    with pytest.raises(TableError, match=r"nowhere\.json is not a readable"):
        load_table(path.with_name("nowhere.json"), family)
