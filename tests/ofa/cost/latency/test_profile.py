import datetime
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from ofa import Choice, Family, SearchSpace
from ofa.core.errors import DeviceError, TableError
from ofa.cost.block_table import distinct_blocks
from ofa.cost.counted import count_macs, macs_m
from ofa.cost.latency.profile import SampleFile, TableConfig, reference
from ofa.cost.latency.table import LatencyTable
from ofa.devices.estimator import Burst


@pytest.fixture(scope="module")
def table(little, pretend, quick):
    return quick(little, pretend())


def test_every_block_the_overhead_and_whole_networks_are_measured(little, table, pretend):
    device = pretend()
    milliseconds = device.hosts[0].milliseconds
    blocks = {(repr(block), size): block for block, size in distinct_blocks(little)}
    assert table.rows.keys() == blocks.keys()
    for key, timing in table.rows.items():
        module = blocks[key].build()
        assert timing.median_ms == pytest.approx(milliseconds(module.eval(), blocks[key].input_shape(key[1])))
    assert table.overhead.median_ms == pytest.approx(0.05)
    for arch, timing in (table.networks | table.checks).items():
        network = little.build(arch).eval()
        assert timing.median_ms == pytest.approx(milliseconds(network, little.input_shape(arch)))
    of_reference = reference(little)
    reference_ms = pytest.approx(milliseconds(of_reference.module().eval(), of_reference.input_shape))
    assert table.device == device.description | {"bursts": "all", "reference_ms": reference_ms}
    assert datetime.datetime.fromisoformat(table.date).tzinfo is not None
    assert table.family is table.measured is little


def test_the_first_networks_are_the_smallest_and_the_largest_and_no_check_is_among_them(little, table):
    archs = [*table.networks, *table.checks]
    assert archs[:2] == [little.space.smallest, little.space.largest]
    assert (len(table.networks), len(table.checks), len(set(archs))) == (12, 4, 16)


def test_the_table_says_which_bursts_count(little, pretend, quick):
    config = TableConfig(networks=4, checks=2, min_rounds=9, max_rounds=9, bursts="fastest")
    assert quick(little, pretend(), config=config).device["bursts"] == "fastest"


def test_the_same_seed_gives_the_same_table_and_leaves_the_global_generator(little, table, pretend, quick):
    before, calls = torch.get_rng_state(), []
    again = quick(little, pretend(), on_progress=lambda *call: calls.append(call))
    assert (again.rows, again.networks, again.checks) == (table.rows, table.networks, table.checks)
    assert torch.equal(torch.get_rng_state(), before)
    n = 1 + len(table.rows) + 16
    loading, rounds = range(16, 16 * n + 1, 16), (17 * n, 18 * n)
    assert calls == [(done, 18 * n) for done in (*loading, *rounds)]
    other = quick(little, pretend(), seed=1)
    assert list(other.networks)[:2] == list(table.networks)[:2]
    assert list(other.networks)[2:] != list(table.networks)[2:]


def test_the_reference_is_always_the_same_network_of_median_macs(little):
    models = [reference(little) for _ in range(2)]
    assert str(models[0].module()) == str(models[1].module())
    macs = [count_macs(model.module(), model.input_shape) for model in models]
    sampled = macs_m(little)(little.space.sample(51, np.random.default_rng(0)))
    assert macs == [pytest.approx(1e6 * np.median(sampled))] * 2


# Families without blocks


def build(arch):
    return torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(arch["depth"])))


def whole(resolutions, depths):
    return Family.from_builder(SearchSpace([Choice("resolution", resolutions), Choice("depth", depths)]), build)


def test_only_networks_are_measured_of_a_family_from_a_builder(pretend, quick):
    family = whole((16, 24), tuple(range(1, 13)))
    table = quick(family, pretend())
    assert table.rows == {}
    assert (len(table.networks), len(table.checks)) == (12, 4)
    rows = family.space.sample(30, np.random.default_rng(1))
    archs = [family.space.decode(row) for row in rows]
    macs = np.array([a["depth"] * 9 * 9 * a["resolution"] ** 2 for a in archs])
    assert table(rows) == pytest.approx(0.05 + 1e-6 * macs, rel=0.5)


@pytest.mark.parametrize(("n", "n_networks", "n_checks"), [(2, 2, 2), (7, 7, 7), (8, 4, 4), (9, 5, 4), (30, 12, 4)])
def test_at_most_half_of_a_small_space_are_checks_and_a_tiny_one_is_checked_on_the_same_networks(
    pretend, quick, n, n_networks, n_checks
):
    family = whole((16,), tuple(range(1, n + 1)))
    table = quick(family, pretend())
    assert (len(table.networks), len(table.checks)) == (n_networks, n_checks)
    assert (table.checks == table.networks) == (n < 8)
    assert len({*table.networks, *table.checks}) == min(n, 16)
    ends = family.space.rows([family.space.smallest, family.space.largest])
    measured_ms = [timing.median_ms for timing in list(table.networks.values())[:2]]
    assert table(ends) == pytest.approx(measured_ms, rel=0.05)


# Resuming


def test_an_interrupted_profile_resumes_with_what_is_missing(little, table, pretend, host, quick, tmp_path):
    path, dies, lives = tmp_path / "samples.json", host(lasts=25), host()
    config = TableConfig(networks=12, checks=4, weights_mib=0.02, min_rounds=4)
    with pytest.raises(DeviceError, match="is lost"):
        quick(little, pretend(dies), samples_path=path, config=config)
    family = {"name": little.name, "options": dict(little.options)}
    samples = SampleFile(path, {"family": family, "device": pretend().description}).samples
    assert 0 < len(samples) < len(table.rows)
    again = quick(little, pretend(lives), samples_path=path)
    n_models = 1 + len(table.rows) + 16
    assert len(lives.loaded) == 1 + n_models - sum(len(bursts) >= 2 for bursts in samples.values())
    assert {key: timing.median_ms for key, timing in again.rows.items()} == pytest.approx(
        {key: timing.median_ms for key, timing in table.rows.items()}
    )


def test_a_finished_profile_measures_only_networks_that_are_added(little, pretend, host, quick, tmp_path):
    path, second, third = tmp_path / "samples.json", host(), host()
    first = quick(little, pretend(), samples_path=path)
    written = path.read_bytes()
    assert quick(little, pretend(second), samples_path=path).rows == first.rows
    assert not second.loaded
    assert path.read_bytes() == written
    more = TableConfig(networks=20, checks=4, min_rounds=2, max_rounds=2)
    assert len(quick(little, pretend(third), samples_path=path, config=more).networks) == 20
    assert len(third.loaded) == 1 + 8


def test_samples_of_another_device_are_refused(little, pretend, quick, tmp_path):
    path = tmp_path / "samples.json"
    quick(little, pretend(), samples_path=path)
    other = pretend()
    other.description = {"device": "pretend", "threads": 2}
    with pytest.raises(TableError, match="has samples of another family or device; remove it to start again"):
        quick(little, other, samples_path=path)


# Limited time


@pytest.fixture
def clock(monkeypatch):
    """Make the clock count the models that a host has loaded, ten a minute, the reference included."""

    def count(host):
        for module in ("ofa.devices.measure", "ofa.cost.latency.profile"):
            monkeypatch.setattr(f"{module}.monotonic", lambda: 6.0 * len(host.loaded))
        return host

    return count


def test_in_limited_time_blocks_are_measured_beside_networks_and_the_others_are_inferred(
    small, pretend, host, quick, clock
):
    config = TableConfig(networks=30, checks=6, min_rounds=2, max_rounds=2, minutes=7.05)
    one = clock(host())
    some = quick(small, pretend(one), config=config)
    assert 69 <= len(one.loaded) <= 71
    assert (len(some.networks), len(some.checks)) == (20, 4)
    n_measured = len(some.rows) + len(some.networks) + len(some.checks)
    assert len(one.loaded) - 5 <= n_measured <= len(one.loaded) - 4  # the overhead, and the reference once a group
    assert list(some.networks)[:2] == [small.space.smallest, small.space.largest]
    whole = quick(small, pretend())
    assert some.rows.items() <= whole.rows.items()
    rows = small.space.sample(200, np.random.default_rng(5))
    full_ms = whole(rows)
    assert some(rows) == pytest.approx(full_ms, rel=0.05)
    assert spearmanr(some(rows), full_ms)[0] > 0.98


def test_more_minutes_go_on_with_what_is_missing(small, pretend, host, quick, clock, tmp_path):
    path, first, second = tmp_path / "samples.json", clock(host()), host()
    config = TableConfig(networks=30, checks=6, min_rounds=2, max_rounds=2, minutes=3.05)
    some = quick(small, pretend(first), config=config, samples_path=path)
    clock(second)
    more = quick(small, pretend(second), config=config.model_copy(update={"minutes": 5.05}), samples_path=path)
    n_loaded = len(first.loaded) + len(second.loaded)
    assert 49 <= n_loaded <= 52  # ten a minute
    n_measured = len(more.rows) + len(more.networks) + len(more.checks)
    assert n_loaded - 5 <= n_measured <= n_loaded - 3  # the overhead, and the reference once a group
    for name in ("rows", "networks", "checks"):
        assert getattr(some, name).items() <= getattr(more, name).items()
    third = clock(host())
    again = quick(small, pretend(third), config=config.model_copy(update={"minutes": 5.05}), samples_path=path)
    assert (again.rows, again.networks) == (more.rows, more.networks)
    assert len(third.loaded) <= 1


def test_too_little_time_is_one_error_and_keeps_what_was_measured(small, pretend, host, quick, clock, tmp_path):
    path, config = tmp_path / "samples.json", TableConfig(min_rounds=2, max_rounds=2, minutes=0.65)
    with pytest.raises(
        TableError, match=r"minutes = 0.65 was enough for 1 networks of small_mobilenet_v3; .*allow more"
    ):
        quick(small, pretend(clock(host())), config=config, samples_path=path)
    assert len(json.loads(path.read_text())["samples"]) == 5


@pytest.mark.parametrize("lasts", range(4))
def test_in_limited_time_a_host_that_is_lost_with_the_overhead_is_one_error(small, pretend, host, quick, clock, lasts):
    dying, other = host(lasts=lasts), clock(host())
    config = TableConfig(networks=30, checks=6, min_rounds=2, max_rounds=2, minutes=3.05)
    with pytest.raises(TableError, match="a table needs 4, and the overhead of a call; allow more minutes"):
        quick(small, pretend(dying, other), config=config)


def test_time_that_is_not_needed_changes_nothing(little, table, pretend, quick):
    config = TableConfig(networks=12, checks=4, min_rounds=2, max_rounds=2, minutes=1000)
    timely = quick(little, pretend(), config=config)
    assert (timely.rows, timely.networks, timely.checks) == (table.rows, table.networks, table.checks)


# New devices


def test_a_new_device_is_predicted_from_a_few_networks_and_the_blocks_of_another(little, table, pretend, host, quick):
    def slower(module, shape):  # all of it takes longer there, and wide kernels even more
        wide = [m for m in module.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (5, 5)]
        return 0.2 + 3 * by_macs(module, shape) + 0.002 * len(wide)

    by_macs, new = host().milliseconds, host(slower)
    few = TableConfig(networks=20, checks=6, min_rounds=2, max_rounds=2)
    adapted = quick(little, pretend(new), seed=1, like=[table], config=few)
    assert len(new.loaded) == 1 + 26  # no block
    assert (adapted.rows, adapted.overhead, adapted.measured) == (table.rows, table.overhead, table.measured)
    of_reference = reference(little)
    reference_ms = pytest.approx(slower(of_reference.module().eval(), of_reference.input_shape))
    expected = {"device": "pretend", "threads": 1, "bursts": "all", "reference_ms": reference_ms}
    assert adapted.device == expected | {"blocks_of": table.device}
    rows = little.space.unique(little.space.sample(500, np.random.default_rng(2)))
    archs = [little.space.decode(row) for row in rows]
    true_ms = [slower(little.build(arch).eval(), little.input_shape(arch)) for arch in archs]
    assert spearmanr(adapted(rows), true_ms)[0] > 0.98
    assert adapted(rows) == pytest.approx(true_ms, rel=0.1)


def test_a_new_device_starts_from_whole_networks_of_several_others(little, table, pretend, host, quick, tmp_path):
    def slower(module, shape):
        wide = [m for m in module.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (5, 5)]
        return 0.2 + 3 * by_macs(module, shape) + 0.05 * len(wide)

    by_macs = host().milliseconds
    new, other = host(slower), host(lambda module, shape: 0.1 + slower(module, shape) / 2)
    others = [replace(table, rows={}), quick(little, pretend(other))]
    few = TableConfig(networks=10, checks=6, min_rounds=2, max_rounds=2)
    adapted = quick(little, pretend(new), seed=1, like=others, config=few)
    assert len(new.loaded) == 1 + 1 + 16  # the reference, the overhead, and no block
    assert (adapted.rows, len(adapted.networks), len(adapted.checks)) == ({}, 10, 6)
    assert [other.device for other in adapted.others] == [one.device for one in others]
    assert [other.networks for other in adapted.others] == [one.latency_ms() for one in others]
    rows = np.stack([*little.space.enumerate()])
    true_ms = [slower(little.build(arch).eval(), little.input_shape(arch)) for arch in map(little.space.decode, rows)]
    assert spearmanr(adapted(rows), true_ms)[0] > 0.98
    adapted.save(tmp_path / "table.json")
    again = LatencyTable.load(tmp_path / "table.json", little)
    np.testing.assert_array_equal(again.predict(rows), adapted.predict(rows))


def test_tables_of_other_devices_must_be_of_one_family(little, small, table, pretend, quick):
    other = replace(table, measured=small, family=small, rows={}, networks={small.space.smallest: table.overhead})
    with pytest.raises(TableError, match="with different options; give tables of one family"):
        quick(little, pretend(), like=[table, other])


def test_a_table_from_other_devices_knows_no_other_resolutions(little, small, table, pretend, quick):
    adapted = quick(little, pretend(), like=[table, table])
    with pytest.raises(TableError, match="knows no other resolutions; profile the device for this family"):
        replace(adapted, family=small)(small.space.rows([small.space.smallest]))


SUBJECT = {"family": {"name": "small", "options": {"resolutions": (12, 16)}}, "device": {"threads": 1}}


@pytest.fixture
def saved(tmp_path):
    file = SampleFile(tmp_path / "samples.json", SUBJECT)
    file.samples["overhead"] = [Burst(0.5, 1.0, 0), Burst(0.6, 1.1, 2)]
    file.save()
    return tmp_path / "samples.json"


def test_samples_are_read_as_they_were_saved(saved):
    samples = SampleFile(saved, SUBJECT).samples
    assert samples == {"overhead": [Burst(0.5, 1.0, 0), Burst(0.6, 1.1, 2)]}
    assert samples["overhead"][1].session == 2
    content = json.loads(saved.read_text())
    assert list(content) == ["format", "version", "family", "device", "seconds", "samples"]
    assert content["samples"] == {"overhead": [[0.5, 1.0, 0], [0.6, 1.1, 2]]}


def test_the_file_is_written_only_if_there_are_new_bursts(saved):
    file = SampleFile(saved, SUBJECT)
    saved.unlink()
    file.samples["other"] = []
    file.save()
    file.samples["other"].append(Burst(1.0, 1.0, 0))
    file.save()
    assert list(SampleFile(saved, SUBJECT).samples) == ["overhead", "other"]
    saved.unlink()
    file.save()
    assert not saved.exists()


def test_without_a_path_nothing_is_written(tmp_path):
    file = SampleFile(None, SUBJECT)
    file.samples["overhead"] = [Burst(0.5, 1.0, 0)]
    file.save()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["device"].update(threads=2), "samples of another family or device; remove it"),
        (lambda content: content["family"].update(name="other"), "samples of another family or device; remove it"),
        (lambda content: content.update(version=1), "samples of another family or device; remove it"),
        (lambda content: content.update(format="x"), "samples of another family or device; remove it"),
        (lambda content: content.pop("device"), "not a readable file of samples"),
        (lambda content: content.pop("samples"), "not a readable file of samples"),
        (lambda content: content["samples"].update(overhead=[3]), "not a readable file of samples"),
        (lambda content: content["samples"].update(overhead=[["a", 1, 0]]), "not a readable file of samples"),
        (lambda content: content["samples"].update(overhead=[[1.0, 1.0]]), "not a readable file of samples"),
    ],
)
def test_wrong_samples_are_one_error_that_names_the_file(saved, change, message):
    content = json.loads(saved.read_text())
    change(content)
    saved.write_text(json.dumps(content))
    with pytest.raises(TableError, match=message) as caught:
        SampleFile(saved, SUBJECT)
    assert str(saved) in str(caught.value)


def test_a_damaged_file_is_one_error(saved):
    saved.write_bytes(saved.read_bytes()[:-9])
    with pytest.raises(TableError, match="not a readable file of samples"):
        SampleFile(saved, SUBJECT)
