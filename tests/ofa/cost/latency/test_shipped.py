import json
import sys
import types

import pytest

from ofa.core.errors import TableError
from ofa.cost.latency import shipped
from ofa.cost.latency.shipped import shipped_tables
from ofa.cost.latency.table import LatencyTable


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

    monkeypatch.setattr(shipped, "entry_points", entry_points)
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
