import json

import pytest

from ofa.cost.latency.table import LatencyTable

FAMILY = ("small_mobilenet_v3", "--options", '{"resolutions": [16], "width_mult": 0.5, "in_channels": 1}')
QUICK = {"min_rounds": 2, "max_rounds": 2, "precision_percent": 100, "burst_ms": 0.2, "networks": 6, "checks": 3}


def quick(**more):
    return ("--measuring", json.dumps(QUICK | more))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("tables") / "table.json"


@pytest.fixture
def table(command, path):
    """Made by the first test that asks; later ones go on with its samples, which are all there."""
    code, out, err = command("profile", *FAMILY, "--device", "ort-cpu", *quick(), "--out", path, "--json")
    assert code == 0, err
    assert "profile: done" in err
    return json.loads(out)


def test_a_family_is_measured_without_a_run(table, path):
    loaded = LatencyTable.load(path)
    assert (table["rows"], table["networks"]) == (len(loaded.rows), len(loaded.networks))
    assert len(loaded.networks) == 6
    assert {"mean_error_percent", "within_10_percent", "in_interval_percent", "spearman"} <= set(table)
    assert path.with_suffix(".samples.json").is_file()


def test_what_is_measured_is_not_measured_again(command, path, table):
    before = json.loads(path.with_suffix(".samples.json").read_text())
    assert command("profile", *FAMILY, "--device", "ort-cpu", *quick(), "--out", path)[0] == 0
    assert json.loads(path.with_suffix(".samples.json").read_text()) == before
    assert table["table"] == str(path)


def test_a_table_like_another_measures_networks_only(command, path, table, tmp_path):
    like = ("--like", path, "--out", tmp_path / "new.json", "--device-options", '{"threads": 1}')
    code, out, err = command("profile", *FAMILY, "--device", "ort-cpu", *quick(networks=10), *like)
    assert code == 0, err
    assert "latency table" in out
    samples = json.loads((tmp_path / "new.samples.json").read_text())["samples"]
    assert len(samples) == 13
    assert LatencyTable.load(tmp_path / "new.json").rows == LatencyTable.load(path).rows
    assert table["rows"] == len(LatencyTable.load(path).rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--device", "toaster"), "unknown device 'toaster'; registered: "),
        (("--device", "ort-cpu", "--device-options", '{"threads": 0}'), "threads = 0 is not allowed"),
        (("--device", "ort-cpu", "--device-options", "threads=1"), "is not JSON"),
        (("--device", "ort-cpu", "--device-options", "[1]"), "is not a JSON object; give one such as"),
        (("--device", "ort-cpu", "--measuring", '{"networks": 1}'), "--measuring: networks = 1"),
        (("--device", "ort-cpu", "--measuring", '{"runs": 1}'), "--measuring: runs: unknown key"),
        (("--device", "ort-cpu", "--like", "nowhere.json"), "nowhere.json is not a readable latency table"),
        ((), "no recipe 'small_mobilenet_v3'; shipped: "),
    ],
)
def test_bad_input(command, arguments, message, tmp_path):
    code, out, err = command("profile", "small_mobilenet_v3", "--out", tmp_path / "table.json", *arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
    assert not (tmp_path / "table.json").exists()


def test_an_unknown_family(command):
    code, _, err = command("profile", "nonesuch", "--device", "ort-cpu")
    assert code == 2
    assert "nonesuch" in err
