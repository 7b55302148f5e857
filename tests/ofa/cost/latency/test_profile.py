import datetime
import json

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import ofa
from ofa import Choice, Family, SearchSpace
from ofa.core.errors import DeviceError, TableError
from ofa.cost.block_table import distinct_blocks
from ofa.cost.latency.profile import TableConfig, adapt, profile, reference
from ofa.cost.latency.table import LatencyTable
from ofa.devices.device import HostLost

QUICK = TableConfig(networks=12, checks=4, min_rounds=2, max_rounds=2)


def profiled(family, device, path=None, config=QUICK, **more):
    return profile(family, device, np.random.default_rng(0), config, path, **more)


@pytest.fixture(scope="module")
def table(tiny, pretend):
    return profiled(tiny, pretend())


def test_every_block_the_overhead_and_whole_networks_are_measured(tiny, table, pretend):
    device = pretend()
    milliseconds = device.hosts[0].milliseconds
    wanted = {(repr(block), size): block for block, size in distinct_blocks(tiny)}
    assert table.rows.keys() == wanted.keys()
    for key, timing in table.rows.items():
        module = wanted[key].build()
        assert timing.median_ms == pytest.approx(milliseconds(module.eval(), wanted[key].input_shape(key[1])))
    assert table.overhead.median_ms == pytest.approx(0.05)
    for network in table.networks + table.checks:
        made = tiny.build(network.arch).eval()
        assert network.timing.median_ms == pytest.approx(milliseconds(made, tiny.input_shape(network.arch)))
    assert table.device == device.description | {"bursts": "all"}
    assert datetime.datetime.fromisoformat(table.date).tzinfo is not None


def test_networks_to_fit_to_begin_with_both_ends_and_are_not_checks(tiny, table):
    archs = [network.arch for network in table.networks + table.checks]
    assert archs[:2] == [tiny.space.smallest, tiny.space.largest]
    assert (len(table.networks), len(table.checks), len(set(archs))) == (12, 4, 16)


def test_profiling_is_repeatable_and_leaves_the_generator(tiny, table, pretend):
    before, calls = torch.get_rng_state(), []
    again = profiled(tiny, pretend(), on_progress=lambda *progress: calls.append(progress))
    assert (again.rows, again.networks, again.checks) == (table.rows, table.networks, table.checks)
    assert torch.equal(torch.get_rng_state(), before)
    n = 1 + len(table.rows) + 16
    assert calls == [(done, 3 * n) for done in (*range(1, n + 1), 2 * n, 3 * n)]  # loaded, and two rounds


def test_the_reference_is_always_the_same_and_of_middling_size(tiny):
    params = [sum(p.numel() for p in reference(tiny).module().parameters()) for _ in range(2)]
    ends = [sum(p.numel() for p in tiny.build(arch).parameters()) for arch in (tiny.space.smallest, tiny.space.largest)]
    assert ends[0] < params[0] == params[1] < ends[1]


# Families that are not made of blocks


def build(arch):
    return torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(arch["depth"])))


def test_of_a_family_of_a_builder_only_networks_are_measured(pretend):
    space = SearchSpace([Choice("resolution", (16, 24)), Choice("depth", tuple(range(1, 13)))])
    table = profiled(Family.from_builder(space, build), pretend())
    assert table.rows == {}
    assert (len(table.networks), len(table.checks)) == (12, 4)
    rows = space.sample(30, np.random.default_rng(1))
    archs = [space.decode(row) for row in rows]
    macs = [a["depth"] * 9 * 9 * a["resolution"] ** 2 for a in archs]
    assert table(rows) == pytest.approx(0.05 + 1e-6 * np.array(macs), rel=0.5)


def test_a_small_space_is_measured_as_far_as_it_goes(pretend):
    space = SearchSpace([Choice("resolution", (16,)), Choice("depth", (1, 2))])
    table = profiled(Family.from_builder(space, build), pretend())
    assert len(table.networks) == 2
    assert table.checks == table.networks
    known = [network.timing.median_ms for network in table.networks]
    assert table(space.rows([space.smallest, space.largest])) == pytest.approx(known, rel=0.05)


# Going on


def test_a_stopped_profile_goes_on_with_what_is_missing(tiny, table, pretend, place, tmp_path):
    path, dies, lives = tmp_path / "samples.json", place(lasts=60), place()
    with pytest.raises(DeviceError, match="is lost"):
        profiled(tiny, pretend(dies), path, TableConfig(networks=12, checks=4, weights_mib=0.3, min_rounds=2))
    known = json.loads(path.read_text())["samples"]
    assert 0 < len(known) < len(table.rows)
    again = profiled(tiny, pretend(lives), path)
    assert len(lives.loaded) == 1 + 1 + len(table.rows) + 16 - sum(len(bursts) >= 2 for bursts in known.values())
    assert {key: timing.median_ms for key, timing in again.rows.items()} == pytest.approx(
        {key: timing.median_ms for key, timing in table.rows.items()}
    )


def test_a_finished_profile_measures_nothing_again_but_more_networks_if_asked(tiny, pretend, place, tmp_path):
    path, second, third = tmp_path / "samples.json", place(), place()
    first = profiled(tiny, pretend(), path)
    assert profiled(tiny, pretend(second), path).rows == first.rows
    assert not second.loaded
    more = profiled(tiny, pretend(third), path, QUICK.model_copy(update={"networks": 20}))
    assert len(third.loaded) == 1 + 8
    assert len(more.networks) == 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["device"].update(threads=2), "samples of another family or device; remove it"),
        (lambda content: content["family"].update(name="other"), "samples of another family or device; remove it"),
        (lambda content: content.update(version=1), "samples of another family or device; remove it"),
        (lambda content: content.pop("samples"), "not a readable file of samples"),
        (lambda content: content["samples"].update(overhead=[3]), "not a readable file of samples"),
        (lambda content: content["samples"].update(overhead=[["a", 1]]), "not a readable file of samples"),
    ],
)
def test_samples_of_something_else(tiny, pretend, tmp_path, change, message):
    path = tmp_path / "samples.json"
    profiled(tiny, pretend(), path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(TableError, match=message) as caught:
        profiled(tiny, pretend(), path)
    assert str(path) in str(caught.value)


def test_a_table_that_was_profiled_is_read_again(table, tmp_path):
    table.save(tmp_path / "table.json")
    loaded = ofa.LatencyTable.load(str(tmp_path / "table.json"))
    assert isinstance(loaded, LatencyTable)
    assert (loaded.rows, loaded.networks, loaded.checks) == (table.rows, table.networks, table.checks)


# New devices


def test_a_new_device_is_known_from_a_few_networks_and_the_blocks_of_another(tiny, table, pretend, place):
    def slower(module, shape):  # convolutions of wide kernels take longer there, and all of it does
        wide = [m for m in module.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (5, 5)]
        return 0.2 + 3 * device.hosts[0].milliseconds(module, shape) + 0.002 * len(wide)

    device, new = pretend(), place(slower)
    few = QUICK.model_copy(update={"networks": 20, "checks": 6})
    adapted = adapt(table, pretend(new), np.random.default_rng(1), few)
    assert len(new.loaded) == 1 + 26  # no block
    assert adapted.rows == table.rows
    assert adapted.device["blocks_of"] == table.device
    rows = tiny.space.sample(100, np.random.default_rng(2))
    archs = [tiny.space.decode(row) for row in rows]
    true = [slower(tiny.build(arch).eval(), tiny.input_shape(arch)) for arch in archs]
    assert spearmanr(adapted(rows), true)[0] > 0.98
    assert adapted(rows) == pytest.approx(true, rel=0.1)


def test_a_table_without_blocks_cannot_be_adapted(pretend):
    space = SearchSpace([Choice("resolution", (16, 24)), Choice("depth", tuple(range(1, 13)))])
    table = profiled(Family.from_builder(space, build), pretend())
    with pytest.raises(TableError, match="has no blocks to adapt; profile the new device instead"):
        adapt(table, pretend(), np.random.default_rng(0), QUICK)


def test_a_lost_place_is_no_error_of_the_user():
    assert not issubclass(HostLost, DeviceError)
