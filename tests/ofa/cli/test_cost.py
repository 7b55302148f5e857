import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import ofa
from ofa.cost.counted import macs_m, params_m, peak_activation_mib, size_mib
from ofa.cost.latency import measurements
from ofa.cost.latency.table import LatencyTable

FAMILY = "small_mobilenet_v3"
SHIPPED = Path(__file__).parents[3] / "latency_luts"
COUNTED = {
    "macs_m": "million multiply-accumulates",
    "params_m": "million parameters",
    "size_mib": "MiB",
    "peak_activation_mib": "MiB",
}


@pytest.fixture(scope="module")
def family():
    return ofa.create_family(FAMILY)


@pytest.fixture
def archs(family):
    return [family.space.decode(row) for row in family.space.sample(4, np.random.default_rng(2))]


@pytest.fixture
def archs_json(archs, tmp_path):
    path = tmp_path / "archs.json"
    path.write_text(json.dumps([dict(arch) for arch in archs[:2]] + [{"arch": dict(arch)} for arch in archs[2:]]))
    return path


@pytest.fixture
def table_json(tmp_path):
    """A copy of the shipped table, as if the user had measured it."""
    return Path(shutil.copy(SHIPPED / "ort-cpu-intel-xeon" / f"{FAMILY}.json", tmp_path / "mine.json"))


@pytest.fixture
def luts(tmp_path, monkeypatch):
    """An empty folder of shipped tables: `luts("folder", "device")` puts a table there."""
    folder = tmp_path / "luts"
    folder.mkdir()
    monkeypatch.setattr(measurements, "plugin_folders", lambda group: [folder])

    def add(name, device, family=FAMILY):
        content = json.loads((SHIPPED / "ort-cpu-intel-xeon" / f"{FAMILY}.json").read_text())
        content["device"]["device"], content["family"]["name"] = device, family
        (folder / name).mkdir(exist_ok=True)
        (folder / name / f"{family}.json").write_text(json.dumps(content))

    return add


def test_counted_costs_of_every_arch_are_shown_with_their_units(command, family, archs, archs_json):
    code, out, err = command("cost", FAMILY, "--archs", archs_json, "--json")
    assert (code, err) == (0, "")
    shown, rows = json.loads(out), family.space.rows(archs)
    assert (shown["family"], shown["units"]) == (FAMILY, COUNTED)
    assert [entry["arch"] for entry in shown["archs"]] == [dict(arch) for arch in archs]
    for key, cost in zip(COUNTED, (macs_m, params_m, size_mib, peak_activation_mib), strict=True):
        assert [entry[key] for entry in shown["archs"]] == pytest.approx(cost(family)(rows))


def test_a_table_adds_latencies_and_power_adds_energy(command, family, archs, archs_json, table_json):
    options = ("--archs", archs_json, "--table", table_json, "--json")
    shown = json.loads(command("cost", FAMILY, *options)[1])
    predicted = LatencyTable.load(table_json, family).predict(family.space.rows(archs))
    assert shown["units"] == COUNTED | dict.fromkeys(("latency_ms", "low_ms", "high_ms"), "ms")
    for key, values in zip(("latency_ms", "low_ms", "high_ms"), predicted, strict=True):
        assert [entry[key] for entry in shown["archs"]] == pytest.approx(values)
    shown = json.loads(command("cost", FAMILY, *options, "--power-w", 2.5)[1])
    assert shown["units"]["energy_mj"] == "mJ"
    assert [entry["energy_mj"] for entry in shown["archs"]] == pytest.approx(2.5 * predicted.mean)


def test_a_shipped_table_is_named_by_its_device_or_its_folder(command, archs_json, table_json):
    expected = command("cost", FAMILY, "--archs", archs_json, "--table", table_json, "--json")[1]
    for name in ("ort-cpu", "ort-cpu-intel-xeon"):
        code, out, err = command("cost", FAMILY, "--archs", archs_json, "--device", name, "--json")
        assert (code, out) == (0, expected), err


def test_a_table_for_people_has_the_names_and_units_of_the_costs(command, archs_json):
    code, out, err = command("cost", FAMILY, "--archs", archs_json)
    assert (code, err) == (0, "")
    for word in (f"costs of {FAMILY}", "macs", "params", "size", "peak_activation", "mib"):
        assert word in out
    assert "latency" not in out
    out = command("cost", FAMILY, "--archs", archs_json, "--device", "ort-cpu", "--power-w", 3)[1]
    for word in ("latency", "low", "high", "energy", f"ort-cpu-intel-xeon/{FAMILY}.json"):
        assert word in out


def test_the_end_of_an_interval_that_is_not_known_is_null(command, archs_json, table_json):
    content = json.loads(table_json.read_text())
    table_json.write_text(json.dumps(content | {"networks": []}))
    options = ("--archs", archs_json, "--table", table_json)
    shown = json.loads(command("cost", FAMILY, *options, "--json")[1])
    assert all(entry["high_ms"] is None and entry["latency_ms"] > 0 for entry in shown["archs"])
    assert command("cost", FAMILY, *options)[0] == 0


def test_a_home_directory_in_a_path_is_expanded(command, archs_json, table_json, monkeypatch):
    monkeypatch.setenv("HOME", str(table_json.parent))
    options = ("--archs", f"~/{archs_json.name}", "--table", f"~/{table_json.name}")
    assert command("cost", FAMILY, *options)[0] == 0


def test_a_family_may_be_a_file_and_have_options(command, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from supernets.small_mobilenet_v3 import family as small\n"
        "def family(resolutions=(16,), in_channels=1):\n"
        "    return small(10, in_channels, resolutions)\n"
    )
    archs = tmp_path / "archs.json"
    mine = ofa.create_family(str(path), resolutions=[24])
    archs.write_text(json.dumps([dict(mine.space.smallest)]))
    code, out, err = command("cost", path, "--archs", archs, "--options", '{"resolutions": [24]}', "--json")
    assert code == 0, err
    (entry,) = json.loads(out)["archs"]
    assert entry["macs_m"] == pytest.approx(macs_m(mine)(mine.space.rows([mine.space.smallest]))[0])


def test_of_several_tables_of_a_device_one_is_chosen_by_its_folder(command, archs_json, luts):
    for folder, device in (("phone-a", "phone"), ("phone-b", "phone"), ("laptop", "ort-cpu")):
        luts(folder, device)
    luts("tablet", "tablet", "ofa_proxyless")
    code, out, err = command("cost", FAMILY, "--archs", archs_json, "--device", "phone")
    assert (code, out) == (2, "")
    assert f"several latency tables of '{FAMILY}' are of 'phone'; choose with --device: phone-a, phone-b" in err
    for name in ("phone-b", "ort-cpu"):
        assert command("cost", FAMILY, "--archs", archs_json, "--device", name)[0] == 0
    code, out, err = command("cost", FAMILY, "--archs", archs_json, "--device", "tablet")
    assert (code, out) == (2, "")
    assert f"no latency table of '{FAMILY}' on 'tablet' is shipped (there are: laptop, phone-a, phone-b)" in err
    assert f"`ofa profile {FAMILY} --device tablet --out FILE`" in err


@pytest.mark.usefixtures("luts")
def test_without_any_shipped_table_there_is_one_error(command, archs_json):
    code, _, err = command("cost", FAMILY, "--archs", archs_json, "--device", "phone")
    assert (code, "is shipped (there are: none); measure one" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((FAMILY,), "Missing option '--archs'"),
        ((FAMILY, "--archs", "nowhere.json"), "cannot read archs from nowhere.json"),
        ((FAMILY, "--archs", "broken.json"), "cannot read archs from broken.json"),
        ((FAMILY, "--archs", "text.json"), "must hold a JSON list of archs"),
        ((FAMILY, "--archs", "empty.json"), "the list of archs in empty.json is empty"),
        ((FAMILY, "--archs", "other.json"), "unknown choice 'block0.heads'"),
        ((FAMILY, "--archs", "pixels.json"), "resolution = 17 is not allowed; choose from"),
        (("mobilenet", "--archs", "good.json"), "unknown family 'mobilenet'; did you mean "),
        (("nowhere.py", "--archs", "good.json"), "no family file nowhere.py"),
        ((FAMILY, "--archs", "good.json", "--options", "{resolutions"), "is not JSON"),
        ((FAMILY, "--archs", "good.json", "--options", "[16]"), "is not a JSON object"),
        ((FAMILY, "--archs", "good.json", "--options", '{"pixels": 16}'), "has no option 'pixels'"),
        (
            (FAMILY, "--archs", "good.json", "--options", '{"resolutions": 16}'),
            f"family '{FAMILY}' refuses the options ",
        ),
        ((FAMILY, "--archs", "good.json", "--table", "nowhere.json"), "nowhere.json is not a readable latency table"),
        ((FAMILY, "--archs", "good.json", "--table", "broken.json"), "broken.json is not a readable latency table"),
        ((FAMILY, "--archs", "good.json", "--device", "x", "--table", "y.json"), "give one of them"),
        ((FAMILY, "--archs", "good.json", "--power-w", "2"), "add --device NAME or --table FILE"),
        *(
            ((FAMILY, "--archs", "good.json", "--device", "ort-cpu", "--power-w", watts), "--power-w: busy_w = ")
            for watts in ("0", "-1", "nan", "inf", "1e30")
        ),
        (("ofa_proxyless", "--archs", "good.json"), "resolution = 28 is not allowed"),
    ],
)
def test_bad_input_gets_one_clear_error(command, family, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    smallest = dict(family.space.smallest)
    texts = {"good": [smallest], "empty": [], "text": "archs", "pixels": [smallest | {"resolution": 17}]}
    texts["other"] = [{"resolution": 28, "block0.heads": 3}]
    for name, value in texts.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    (tmp_path / "broken.json").write_text("[{")
    code, out, err = command("cost", *arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err
