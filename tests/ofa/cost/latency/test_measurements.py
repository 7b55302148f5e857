import json
import sys
import types
from dataclasses import replace

import numpy as np
import pytest

import ofa
from ofa.core import plugins
from ofa.core.errors import TableError
from ofa.cost.latency.measurements import Measurements, shipped_tables
from ofa.cost.latency.table import LatencyTable
from ofa.devices.device import Timing


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_saved_measurements_are_loaded_as_they_were(small, table, path):
    for loaded in (LatencyTable.load(path), LatencyTable.load(str(path), small), Measurements.load(path)):
        assert (loaded.rows, loaded.networks, loaded.checks) == (table.rows, table.networks, table.checks)
        assert list(loaded.networks) == list(table.networks)
        assert (loaded.device, loaded.date, loaded.overhead) == (table.device, table.date, table.overhead)
        assert loaded.measured.options == small.options
    assert list(path.parent.iterdir()) == [path]
    again = path.with_name("again.json")
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()


def test_the_file_has_the_documented_keys(path):
    content = json.loads(path.read_text())
    assert " ".join(content) == "format version family device date overhead rows networks checks"
    assert list(content["rows"][0]) == ["block", "size", "median_ms", "spread_ms", "repeats"]
    assert list(content["checks"][0]) == ["arch", "median_ms", "spread_ms", "repeats"]


def test_a_home_directory_in_the_path_is_expanded(small, path, monkeypatch):
    monkeypatch.setenv("HOME", str(path.parent))
    assert len(LatencyTable.load("~/table.json", small).networks) == 12


def test_measurements_are_compared_and_hashed_by_identity_and_shown_on_one_line(table):
    same = replace(table)
    assert table == table
    assert table != same
    assert len({table, same, table}) == 2
    assert (
        repr(table)
        == f"LatencyTable('small_mobilenet_v3' on 'pretend': {len(table.rows)} blocks, 12 networks, 4 checks)"
    )


# Families


def test_a_given_family_with_the_same_options_is_the_measured_one(small, path):
    loaded = LatencyTable.load(path, small)
    assert loaded.measured is loaded.family is small


def test_for_a_family_at_other_resolutions_the_measured_one_is_created(small, path):
    other = ofa.create_family(small.name, **{**small.options, "resolutions": [12, 14]})
    loaded = LatencyTable.load(path, other)
    assert loaded.family is other
    assert (loaded.measured.resolutions, loaded.measured.name) == ((12, 16), small.name)


FAMILY_FILE = """
from ofa import Choice, Family, SearchSpace, Slot
from supernets.blocks.convolutions import ConvNorm, Head

def family(resolutions=(8, 12)):
    choices = [Choice("resolution", resolutions), Choice("depth", (1, 2, 3)), Choice("width", (4, 8))]
    layers = [
        Slot(f"layers.{i}", lambda depth, width, i=i: ConvNorm(width, width) if depth > i else None, ("depth", "width"))
        for i in range(3)
    ]
    stem = Slot("stem", lambda width: ConvNorm(3, width), ("width",))
    head = Slot("head", lambda width: Head(width, 8, 8, 4), ("width",))
    return Family("mine", SearchSpace(choices), (stem, *layers, head))
"""


def test_a_family_from_a_file_and_one_with_coupled_choices_load_with_the_given_family(pretend, quick, tmp_path):
    (tmp_path / "mine.py").write_text(FAMILY_FILE)
    mine = ofa.create_family(str(tmp_path / "mine.py"), resolutions=(8, 12, 16))
    for family in (mine, mine.coupled({"width": "depth"})):
        measured = quick(family, pretend())
        measured.save(tmp_path / "table.json")
        loaded = LatencyTable.load(tmp_path / "table.json", family)
        rows = family.space.sample(20, np.random.default_rng(0))
        assert np.array_equal(loaded(rows), measured(rows))


def test_a_table_of_another_family_is_refused(path):
    with pytest.raises(TableError, match="is a table of family 'small_mobilenet_v3', not of 'ofa_mobilenet_v3'"):
        LatencyTable.load(path, ofa.create_family("ofa_mobilenet_v3"))


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ({"name": "custom", "options": {}}, "unknown family 'custom'"),
        ({"name": "small_mobilenet_v3", "options": {"pixels": 3}}, "has no option 'pixels'"),
        ({"name": "small_mobilenet_v3", "options": {"resolutions": 3}}, "table.json"),
    ],
)
def test_a_family_that_cannot_be_created_is_one_error(path, family, reason):
    edit(path, lambda content: content.update(family=family))
    with pytest.raises(TableError, match=r"table\.json is a table of a family that cannot be created") as caught:
        LatencyTable.load(path)
    assert reason in str(caught.value)


# Broken files


def without(key):
    return lambda content: content.pop(key)


def changed(key, **values):
    return lambda content: content[key][0].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(version=1), "it is ofa-latency-table version 1, not ofa-latency-table 2"),
        (lambda content: content.update(format="table"), "it is table version 2, not ofa-latency-table 2"),
        *((without(key), f"KeyError('{key}')") for key in ("format", "family", "rows", "overhead", "date", "checks")),
        (lambda content: content["rows"][3].pop("size"), "KeyError('size')"),
        (changed("rows", size="wide"), "invalid literal for int"),
        (changed("rows", unit="s"), "unexpected keyword argument 'unit'"),
        (changed("rows", median_ms="1"), "TypeError"),
        (changed("rows", median_ms=None), "TypeError"),
        (changed("rows", median_ms=-1.0), "median_ms=-1.0, spread_ms=0.0, repeats=2) is not a timing"),
        (changed("networks", median_ms=0.0), "or a network of 0 ms"),
        (changed("checks", arch={"resolution": 13}), "resolution = 13 is not allowed"),
        (lambda content: content["overhead"].update(median_ms=float("nan")), "is not a timing"),
        (lambda content: content["checks"].append(3), "AttributeError"),
        (lambda content: content.update(rows=3), "TypeError"),
        (lambda content: content.update(rows=[], networks=[]), "has nothing to predict from"),
        (lambda content: content.update(device="ort-cpu"), "ValueError"),
        (lambda content: content.update(family="small"), "TypeError"),
    ],
)
def test_a_wrong_table_is_one_error_that_names_the_file_and_the_reason(path, change, message):
    edit(path, change)
    with pytest.raises(TableError) as caught:
        LatencyTable.load(path)
    assert str(caught.value).startswith(f"{path} is not a readable latency table (")
    assert str(caught.value).endswith("); profile the device again")
    assert message in str(caught.value)


def test_a_damaged_or_missing_file_is_one_error(path):
    whole = path.read_bytes()
    for content in (b"", whole[:-2], whole[: len(whole) // 2], b"[]", b"null", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(TableError, match=r"is not a readable latency table .*; profile the device again"):
            LatencyTable.load(path)
    with pytest.raises(TableError, match=r"nowhere\.json is not a readable"):
        LatencyTable.load(path.with_name("nowhere.json"))


def test_a_table_without_blocks_and_networks_cannot_be_constructed(table):
    with pytest.raises(TableError, match=r"has nothing to predict from.*; profile the device again"):
        replace(table, rows={}, networks={})
    with pytest.raises(TableError, match="or a network of 0 ms"):
        replace(table, checks={arch: Timing(0.0, 0.0, 1) for arch in table.checks})


class Point:
    def __init__(self, module):
        self.module = module

    def load(self):
        return self.module

    def __lt__(self, other):
        return self.module.__name__ < other.module.__name__


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Two packages in the place of those that are installed; gives their folders."""
    points = []
    for name in ("tables_b", "tables_a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        module = types.ModuleType(name)
        module.__path__ = [str(tmp_path / name)]
        module.__spec__ = __import__("importlib.util").util.spec_from_file_location(
            name, tmp_path / name / "__init__.py", submodule_search_locations=module.__path__
        )
        monkeypatch.setitem(sys.modules, name, module)
        points.append(Point(module))

    def entry_points(group):
        assert group == "ofa.latency_tables"
        return points

    monkeypatch.setattr(plugins, "entry_points", entry_points)
    return tmp_path


def put(folder, **content):
    folder.mkdir(parents=True, exist_ok=True)
    table = {"family": {"name": "small"}, "device": {"device": "phone", "threads": 1}, "rows": [1, 2]}
    (folder / "small.json").write_text(json.dumps(table | {"date": "2026-01-02T03:04:05+00:00"} | content))


def test_tables_of_all_packages_are_summarized_in_order(packages):
    put(packages / "tables_b" / "phone-b")
    put(packages / "tables_a" / "phone-c", rows=[])
    put(packages / "tables_a" / "phone-a")
    (packages / "tables_a" / "README.json").touch()  # not in a folder of its own
    tables = shipped_tables()
    assert [path.relative_to(packages).as_posix() for path in tables] == [
        "tables_a/phone-a/small.json",
        "tables_a/phone-c/small.json",
        "tables_b/phone-b/small.json",
    ]
    summary = {"table": "phone-a", "family": "small", "rows": 2, "date": "2026-01-02", "device": "phone", "threads": 1}
    assert next(iter(tables.values())) == summary


@pytest.mark.parametrize("key", ["family", "device", "rows", "date"])
def test_a_file_that_is_not_a_table_is_one_error_that_names_it(packages, key):
    put(packages / "tables_a" / "phone-a", **{key: None})
    with pytest.raises(TableError, match=r"phone-a/small\.json is not a readable latency table .*; reinstall"):
        shipped_tables()
    (packages / "tables_a" / "phone-a" / "small.json").write_text("[{")
    with pytest.raises(TableError, match=r"phone-a/small\.json is not a readable latency table"):
        shipped_tables()


@pytest.mark.usefixtures("packages")
def test_no_packages_no_tables():
    assert shipped_tables() == {}


def test_the_tables_of_this_project_are_shipped_and_can_be_loaded():
    tables = shipped_tables()
    assert {"ort-cpu-intel-xeon", "openvino-cpu-amd-epyc"} <= {summary["table"] for summary in tables.values()}
    for path, summary in tables.items():
        table = LatencyTable.load(path)
        assert (table.family.name, len(table.rows)) == (summary["family"], summary["rows"])
        assert table.device["device"] == summary["device"]
