import json
import os
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from export.bundle import load_bundle
from ofa.core.errors import BundleError
from ofa.pipeline.levels import Level

LABELS = tuple("abcdefghij")
PREPROCESS = {"resolution": 32, "in_channels": 1, "mean": [0.3], "std": [0.4]}


def edit(folder, change):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_a_bundle_that_was_written_is_read(folder, levels, source):
    bundle = load_bundle(folder)
    assert (bundle.name, bundle.labels, bundle.device) == ("tiny", LABELS, {"device": "ort-cpu"})
    assert [level.file for level in bundle.levels] == ["level-0.onnx", "level-1.onnx", "level-2.onnx"]
    for number, (level, original) in enumerate(zip(bundle.levels, levels, strict=True)):
        assert replace(level, file=original.file, sha256="") == replace(original, arch=dict(original.arch))
        assert bundle.read_model(number) == (source / original.file).read_bytes()
    assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name]


def test_the_manifest_has_the_documented_keys(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    page = (Path(__file__).parents[2] / "docs" / "bundle.md").read_text()
    documented = re.findall(r"^\| `(\w+)`", page.partition("## Format")[2], re.MULTILINE)
    level = manifest["levels"][0]
    assert documented == [*manifest, *level, *level["preprocess"]]
    assert f"version {manifest['version']}" in page
    assert set(asdict(load_bundle(folder).levels[0])) == set(level)


def test_a_newer_bundle_takes_the_place_of_an_older_one(folder, levels, write):
    write(folder, levels[1:], name="newer")
    assert load_bundle(folder).name == "newer"
    assert sorted(p.name for p in folder.iterdir()) == ["level-0.onnx", "level-1.onnx", "manifest.json"]
    assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name]


def test_a_failed_write_leaves_the_older_bundle(folder, levels, write):
    missing = [*levels[:2], replace(levels[2], file="missing.onnx")]
    with pytest.raises(BundleError, match=r"missing\.onnx cannot be read .* export this level first"):
        write(folder, missing, name="newer")
    assert load_bundle(folder).name == "tiny"
    assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name]


def test_a_failed_rename_leaves_the_older_bundle(folder, levels, write, monkeypatch):
    rename = Path.rename

    def fail_into_place(self, target):
        if self.name.endswith(".new"):
            raise OSError("no space left")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_into_place)
    with pytest.raises(OSError, match="no space left"):
        write(folder, levels, name="newer")
    assert load_bundle(folder).name == "tiny"
    assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name]


def test_a_folder_of_other_files_is_left_alone(levels, write, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("years of work")
    for path in (tmp_path / "notes", tmp_path / "notes" / "thesis.txt"):
        with pytest.raises(BundleError, match="exists and is not a bundle"):
            write(path, levels)
    assert (tmp_path / "notes" / "thesis.txt").read_text() == "years of work"


def test_levels_go_from_the_slowest_to_the_fastest_whatever_their_accuracies(levels, write, tmp_path):
    with pytest.raises(
        BundleError, match=r"level 0 takes 2\.000 ms, level 1 3\.000 ms; sort the levels from the slowest"
    ):
        write(tmp_path / "bundle", [levels[1], levels[0]])
    assert not list(tmp_path.iterdir())
    ahead = replace(levels[1], top1_percent=levels[0].top1_percent + 1, latency_ms=levels[0].latency_ms)
    assert len(write(tmp_path / "bundle", [levels[0], ahead]).levels) == 2


@pytest.mark.parametrize(("n_levels", "labels"), [(0, LABELS), (3, ())])
def test_a_bundle_has_levels_and_labels(levels, write, tmp_path, n_levels, labels):
    with pytest.raises(BundleError, match="at least one level and labels"):
        write(tmp_path / "bundle", levels[:n_levels], labels=labels)
    assert not list(tmp_path.iterdir())


def test_a_tilde_is_the_home_directory(levels, write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert write(Path("~/bundle"), levels).folder == tmp_path / "bundle"
    assert load_bundle(Path("~/bundle")).name == "tiny"


def without(key):
    return lambda manifest: manifest.pop(key)


def level_with(key, value):
    return lambda manifest: manifest["levels"][1].update({key: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("format"), "is not the manifest of a bundle"),
        (without("version"), "has version None"),
        (lambda m: m.update(version=1), "has version 1, this program reads 2"),
        *((without(key), f"'{key}' is missing") for key in ("created", "name", "device", "labels", "levels")),
        (lambda m: m.update(levels=[]), "at least one level"),
        (lambda m: m.update(levels=["level-0.onnx"]), "level 0: 'level-0.onnx' is not an object"),
        (lambda m: m.update(labels=[1, 2]), "labels that are strings"),
        *(
            (lambda m, key=key: m["levels"][1].pop(key), f"level 1: '{key}' is missing")
            for key in (*Level.__dataclass_fields__, "sha256", "preprocess")
        ),
        (level_with("onnx", "level-1.onnx"), "level 1: 'onnx' is missing or unknown"),
        *((level_with("latency_ms", ms), "level 1: latency_ms = ") for ms in ("fast", True, float("nan"), None)),
        (level_with("arch", {"resolution": "big"}), "level 1: arch = "),
        *(
            (level_with("preprocess", PREPROCESS | change), f"level 1: {message}")
            for change, message in (
                ({"resolution": 0}, "resolution = 0"),
                ({"resolution": None}, "resolution = None"),
                ({"in_channels": 4}, "in_channels = 4 is not known; choose from 1, 3"),
                ({"mean": [0.5] * 3}, "mean .* must each have 1 values"),
                ({"mean": "abc"}, "mean = 'abc'"),
                ({"std": [0.0]}, "mean .* std above 0"),
                ({"std": [float("nan")]}, "std = "),
                ({"crop": 1}, "'crop' is missing or unknown"),
            )
        ),
        (level_with("preprocess", {}), "level 1: 'in_channels', 'mean', 'resolution', 'std' is missing"),
        (level_with("preprocess", None), "level 1: None is not an object"),
        (level_with("file", "level-9.onnx"), r"level-9\.onnx cannot be read"),
        (level_with("file", "level-0.onnx"), r"level-0\.onnx does not match its checksum"),
        (level_with("sha256", "0" * 64), r"level-1\.onnx does not match its checksum"),
        *(
            (level_with("file", file), "is outside the bundle's folder")
            for file in ("../bundle/level-1.onnx", "/etc/hostname", "..", ".", "", "a/../level-1.onnx", "..\\x.onnx")
        ),
    ],
)
def test_a_wrong_manifest_is_refused_by_name(folder, change, message):
    edit(folder, change)
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(folder)
    assert str(folder) in str(caught.value)


def test_a_link_out_of_the_folder_is_refused(folder, source):
    (folder / "level-1.onnx").unlink()
    os.symlink(source / "32.onnx", folder / "level-1.onnx")
    with pytest.raises(BundleError, match="is outside the bundle's folder"):
        load_bundle(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"ofa-bundle"', "\x00"])
def test_a_file_that_is_no_manifest_is_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"manifest\.json is not"):
        load_bundle(folder)


def test_a_manifest_that_is_not_utf_8_is_refused(folder):
    (folder / "manifest.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(BundleError, match="is not JSON"):
        load_bundle(folder)


def test_a_missing_folder_manifest_or_model_is_named(folder):
    with pytest.raises(BundleError, match="give the folder of a bundle"):
        load_bundle(folder / "nowhere")
    (folder / "level-2.onnx").unlink()
    with pytest.raises(BundleError, match=r"level-2\.onnx cannot be read"):
        load_bundle(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(BundleError, match=r"manifest\.json cannot be read"):
        load_bundle(folder)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda _: b"", lambda b: b[:100] + b"\x00" + b[101:] + b"\x01"])
def test_a_damaged_model_is_refused(folder, damage):
    path = folder / "level-1.onnx"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BundleError, match=r"level-1\.onnx does not match its checksum"):
        load_bundle(folder)
