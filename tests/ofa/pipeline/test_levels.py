import json
import re
import subprocess
import sys
from dataclasses import asdict, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa.core.errors import RunError
from ofa.pipeline.levels import Level, ReplayStep, from_json, read_records, to_json, write_records
from ofa.space.arch import Arch
from tests.levels import level

LEVEL = level({"resolution": 24, "ratio": 0.5}, "export/level-0.onnx")
STEP = ReplayStep(50.0, False, 1, 90.0, 14, 16, 2.5)
FILES = [("export/levels.json", LEVEL, "export"), ("replay.json", STEP, "bundle")]

numbers = st.floats(-1e6, 1e6) | st.integers(-9, 9)


@given(
    st.builds(
        Level,
        arch=st.dictionaries(st.text(max_size=3), numbers),
        bytes=st.integers(),
        batch=st.integers(),
        energy_mj=st.none() | numbers,
        **{field.name: numbers for field in fields(Level) if field.type == "float" or field.type is float},
    )
)
def test_a_level_survives_json(made):
    assert from_json(Level, json.loads(json.dumps(to_json(made)))) == made


@given(
    st.builds(
        ReplayStep, numbers, st.booleans(), st.integers(), numbers, st.none() | st.integers(), st.integers(), numbers
    )
)
def test_a_replay_step_survives_json(step):
    assert from_json(ReplayStep, json.loads(json.dumps(to_json(step)))) == step


@pytest.mark.parametrize(("file", "record", "_command"), FILES)
def test_files_hold_the_fields_by_name_and_are_read_in_order(tmp_path, file, record, _command):
    (tmp_path / "export").mkdir()
    records = [record, replace(record, latency_ms=1.0)]
    write_records(tmp_path, type(record), records)
    assert read_records(tmp_path, type(record)) == records
    names = [field.name for field in fields(record)]
    assert [list(entry) for entry in json.loads((tmp_path / file).read_text())] == [names, names]


def test_an_arch_of_the_search_space_is_written_as_an_object(tmp_path):
    (tmp_path / "export").mkdir()
    write_records(tmp_path, Level, [replace(LEVEL, arch=Arch(LEVEL.arch))])
    assert read_records(tmp_path, Level) == [LEVEL]


@pytest.mark.parametrize(("file", "record", "command"), FILES)
@pytest.mark.parametrize("text", [None, "", "{", "5", "[5]", "[{}]", "\x00"])
def test_a_missing_or_malformed_file_names_the_command_that_writes_it(tmp_path, file, record, command, text):
    (tmp_path / "export").mkdir()
    if text is not None:
        (tmp_path / file).write_text(text)
    with pytest.raises(RunError, match=rf"{re.escape(file)} cannot be read \(.*\); run `ofa {command}` again"):
        read_records(tmp_path, type(record))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        *((LEVEL, {name: value}) for name in ("latency_ms", "top1_percent") for value in (None, "1", True, [], {})),
        *((LEVEL, {"latency_ms": float(value)}) for value in ("nan", "inf")),
        *((LEVEL, {"file": value}) for value in (None, 5)),
        *((LEVEL, {"bytes": value}) for value in (None, 5.0, "5", True)),
        *((LEVEL, {"measured": value}) for value in (None, 1)),
        *((LEVEL, {"energy_mj": value}) for value in ("1", True, float("nan"))),
        *((LEVEL, {"arch": value}) for value in (None, [], {"resolution": "24"}, {"resolution": True})),
        *((STEP, {"correct": value}) for value in (1.5, "1", True)),
        *((STEP, {"charging": value}) for value in (0, None)),
        *((STEP, {"level": value}) for value in (True, 1.0, None)),
        (LEVEL, {"onnx": "x"}),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(kind, change):
    with pytest.raises(ValueError, match=next(iter(change))):
        from_json(type(kind), asdict(kind) | change)


@pytest.mark.parametrize("record", [LEVEL, STEP])
def test_every_missing_field_is_named(record):
    for name in asdict(record):
        values = asdict(record)
        del values[name]
        with pytest.raises(ValueError, match=f"'{name}' is missing or unknown"):
            from_json(type(record), values)


def test_only_the_standard_library_is_imported():
    program = (
        "import sys; before = set(sys.modules); import ofa.pipeline.levels; "
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "['ofa']"
