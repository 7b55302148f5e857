import json
import re

import pytest

from ofa.cost.latency.table import LatencyTable

OPTIONS = '{"resolutions": [16], "width_mult": 0.5, "in_channels": 1}'
FAMILY = ("small_mobilenet_v3", "--options", OPTIONS)
QUICK = {"min_rounds": 2, "max_rounds": 2, "precision_percent": 100, "burst_ms": 0.2, "networks": 6, "checks": 3}


def quick(**more):
    return ("--measuring", json.dumps(QUICK | more))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("tables") / "table.json"


@pytest.fixture
def shown(command, path):
    """What the command prints; the first test that asks measures, later ones resume from its samples."""
    code, out, err = command("profile", *FAMILY, "--device", "ort-cpu", *quick(), "--out", path, "--json")
    assert code == 0, err
    assert "profile: done" in err
    return json.loads(out)


def test_a_family_is_measured_without_a_run(shown, path):
    table = LatencyTable.load(path)
    assert list(shown) == [
        "table",
        "rows",
        "networks",
        "mean_error_percent",
        "within_5_percent",
        "within_10_percent",
        "spearman",
        "n",
        "in_interval_percent",
    ]
    assert (shown["table"], shown["rows"], shown["networks"]) == (str(path), len(table.rows), len(table.networks))
    assert (len(table.networks), shown["n"]) == (6, 3)
    assert path.with_suffix(".samples.json").is_file()


@pytest.mark.usefixtures("shown")
def test_what_was_measured_is_not_measured_again(command, path):
    before = path.with_suffix(".samples.json").read_bytes()
    assert command("profile", *FAMILY, "--device", "ort-cpu", *quick(), "--out", path)[0] == 0
    assert path.with_suffix(".samples.json").read_bytes() == before


@pytest.mark.usefixtures("shown")
def test_a_time_that_is_enough_gives_the_whole_table(command, path, tmp_path):
    samples = tmp_path / "table.samples.json"
    samples.write_bytes(path.with_suffix(".samples.json").read_bytes())
    minutes = ("--minutes", "1000", "--out", tmp_path / "table.json")
    assert command("profile", *FAMILY, "--device", "ort-cpu", *quick(), *minutes)[0] == 0
    assert LatencyTable.load(tmp_path / "table.json").rows == LatencyTable.load(path).rows


@pytest.mark.usefixtures("shown")
def test_with_the_table_of_another_device_only_networks_are_measured(command, path, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(path.parent))
    like = ("--like", "~/table.json", "--out", tmp_path / "new.json", "--device-options", '{"threads": 1}')
    code, out, err = command("profile", *FAMILY, "--device", "ort-cpu", *quick(networks=10), *like)
    assert code == 0, err
    assert "latency table" in out
    samples = json.loads((tmp_path / "new.samples.json").read_text())["samples"]
    assert len(samples) == 13
    assert LatencyTable.load(tmp_path / "new.json").rows == LatencyTable.load(path).rows


@pytest.mark.usefixtures("shown")
def test_a_metric_that_is_not_defined_is_null(command, path):
    """Equal latencies have no rank correlation, and NaN is not JSON."""
    samples = path.with_suffix(".samples.json")
    content = json.loads(samples.read_text())
    equal = {name: [[1.0, 1.0, 0]] * 2 for name in content["samples"]}
    samples.write_text(json.dumps(content | {"samples": equal}))
    out = command("profile", *FAMILY, "--device", "ort-cpu", *quick(), "--out", path, "--json")[1]
    assert json.loads(out)["spearman"] is None
    assert "NaN" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--device", "quux"), "unknown device 'quux'; choose from adb"),
        (("--device", "ort-gpu"), "unknown device 'ort-gpu'; did you mean ort-cpu"),
        (("--device", "ort-cpu", "--device-options", '{"thread": 1}'), "has no option 'thread'; did you mean threads?"),
        (("--device", "ort-cpu", "--device-options", '{"threads": 0}'), "threads = 0 is not allowed"),
        (("--device", "ort-cpu", "--device-options", "threads=1"), "is not JSON"),
        (("--device", "ort-cpu", "--device-options", "[1]"), "is not a JSON object; give an object such as"),
        (
            ("--device", "ort-cpu", "--options", '{"resolutions": 3}'),
            "family 'small_mobilenet_v3' refuses the options ",
        ),
        (("--device", "ort-cpu", "--measuring", '{"networks": 1}'), "--measuring: networks = 1"),
        (("--device", "ort-cpu", "--measuring", '{"burst_ms": 1e9}'), "--measuring: burst_ms = 1000000000.0"),
        (("--device", "ort-cpu", "--measuring", '{"runs": 1}'), "--measuring: runs: unknown key"),
        (("--device", "ort-cpu", "--minutes", "0"), "--measuring: minutes = 0.0: input should be greater than 0"),
        (("--device", "ort-cpu", "--like", "nowhere.json"), "nowhere.json is not a readable latency table"),
        ((), "--out: for a family on a device, without a run; add --device"),
    ],
)
def test_bad_input_gets_one_clear_error_and_writes_nothing(command, arguments, message, tmp_path):
    code, out, err = command("profile", "small_mobilenet_v3", "--out", tmp_path / "table.json", *arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


OF_A_DEVICE = {
    "--options": "{}",
    "--device-options": "{}",
    "--measuring": "{}",
    "--minutes": "1",
    "--like": "a.json",
    "--out": "b.json",
}
OF_A_RUN = {"--run": "a", "--run-dir": "a", "--target": "local"}
OF_THE_OTHER = [(("nonesuch",), OF_A_DEVICE), (("nonesuch", "--device", "nonesuch"), OF_A_RUN)]


@pytest.mark.parametrize(
    ("mode", "options"),
    [(mode, [*pair]) for mode, others in OF_THE_OTHER for pair in others.items()]
    + [(mode, [text for pair in others.items() for text in pair]) for mode, others in OF_THE_OTHER],
)
def test_options_of_the_other_mode_are_one_error_that_names_them(command, tmp_path, monkeypatch, mode, options):
    monkeypatch.chdir(tmp_path)
    code, out, err = command("profile", *mode, *options)
    assert (code, out) == (2, "")
    for name in options[::2]:
        assert name.removesuffix("-dir") in " ".join(err.split())
    assert not list(tmp_path.iterdir())


def test_every_option_belongs_to_a_mode_or_to_both(command):
    listed = set(re.findall(r"--[a-z-]+", command("profile", "--help")[1]))
    assert {"--device", "--json", "--help", *OF_A_DEVICE, *OF_A_RUN} == listed


def test_the_tables_of_a_run_are_shown_as_a_table_and_as_json(command, finished, tiny_yaml):
    code, out, err = command("profile", tiny_yaml, "--run", finished, "--target", "local", "--json")
    assert code == 0, err
    (shown,) = json.loads(out)
    table = LatencyTable.load(finished / "targets/local/latency_table-float32.json")
    assert (shown["target"], shown["precision"]) == ("local", "float32")
    assert (shown["table"], shown["rows"]) == (
        str(finished / "targets/local/latency_table-float32.json"),
        len(table.rows),
    )
    assert shown["n"] == len(table.checks)
    assert "latency table" in command("profile", tiny_yaml, "--run", finished)[1]


def test_an_unknown_family_is_one_error(command):
    code, _, err = command("profile", "nonesuch", "--device", "ort-cpu")
    assert (code, "unknown family 'nonesuch'" in err) == (2, True)
