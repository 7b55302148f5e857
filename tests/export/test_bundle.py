import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from export.bundle import load_bundle, write_bundle
from ofa.core.errors import BundleError

LABELS = tuple("abcdefghij")


def edit(folder, change):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_what_is_written_is_read(folder, levels):
    bundle = load_bundle(folder)
    assert (bundle.name, bundle.labels, bundle.device) == ("tiny", LABELS, {"device": "ort-cpu"})
    assert [level.file for level in bundle.levels] == ["level-0.onnx", "level-1.onnx", "level-2.onnx"]
    for number, (level, (wanted, source)) in enumerate(zip(bundle.levels, levels, strict=True)):
        assert replace(level, file="", sha256="") == replace(wanted, arch=dict(wanted.arch))
        assert bundle.read_model(number) == source.read_bytes()
    assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name]


def test_the_manifest_has_the_documented_keys(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert list(manifest) == ["format", "version", "created", "name", "device", "labels", "levels"]
    assert set(manifest["levels"][0]) == {
        "file",
        "sha256",
        "arch",
        "top1_percent",
        "latency_ms",
        "predicted_latency_ms",
        "macs_m",
        "params_m",
        "preprocess",
    }


def test_a_newer_bundle_takes_the_place_of_an_older_one(folder, levels):
    write_bundle(folder, "newer", LABELS, {}, levels[1:])
    assert load_bundle(folder).name == "newer"
    assert sorted(p.name for p in folder.iterdir()) == ["level-0.onnx", "level-1.onnx", "manifest.json"]
    assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name]


def test_a_failed_write_leaves_the_older_bundle(folder, levels, tmp_path):
    missing = [*levels[:2], (levels[2][0], tmp_path / "missing.onnx")]
    with pytest.raises(BundleError, match=r"missing\.onnx cannot be read .* export this level first"):
        write_bundle(folder, "newer", LABELS, {}, missing)
    assert load_bundle(folder).name == "tiny"
    assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name]


def test_a_failed_rename_leaves_the_older_bundle(folder, levels, monkeypatch):
    rename = Path.rename

    def fail_into_place(self, target):
        if self.name.endswith(".new"):
            raise OSError("no space left")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_into_place)
    with pytest.raises(OSError, match="no space left"):
        write_bundle(folder, "newer", LABELS, {}, levels)
    assert load_bundle(folder).name == "tiny"
    assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name]


def test_a_folder_of_other_things_is_left_alone(levels, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("years of work")
    for path in (tmp_path / "notes", tmp_path / "notes" / "thesis.txt"):
        with pytest.raises(BundleError, match="is not a bundle"):
            write_bundle(path, "tiny", LABELS, {}, levels)
    assert (tmp_path / "notes" / "thesis.txt").read_text() == "years of work"


def test_levels_go_from_the_slowest_to_the_fastest_whatever_their_accuracies(levels, tmp_path):
    with pytest.raises(BundleError, match=r"level 0 takes .* sort the levels from the slowest to the fastest"):
        write_bundle(tmp_path / "bundle", "tiny", LABELS, {}, [levels[1], levels[0]])
    assert not list(tmp_path.iterdir())
    ahead = (replace(levels[1][0], top1_percent=levels[0][0].top1_percent + 1), levels[1][1])
    assert len(write_bundle(tmp_path / "bundle", "tiny", LABELS, {}, [levels[0], ahead]).levels) == 2


@pytest.mark.parametrize(("n_levels", "labels"), [(0, LABELS), (3, ())])
def test_no_levels_or_no_labels(levels, tmp_path, n_levels, labels):
    with pytest.raises(BundleError, match="at least one"):
        write_bundle(tmp_path / "bundle", "tiny", labels, {}, levels[:n_levels])
    assert not list(tmp_path.iterdir())


def without(key):
    return lambda manifest: manifest.pop(key)


def level_with(key, value):
    return lambda manifest: manifest["levels"][1].update({key: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("format"), "is not the manifest of a bundle"),
        (without("version"), "has version None"),
        (lambda m: m.update(version=2), "has version 2, this program reads 1"),
        *((without(key), f"'{key}' is missing") for key in ("created", "name", "device", "labels", "levels")),
        (lambda m: m.update(levels=[]), "has no levels"),
        (lambda m: m.update(levels=["level-0.onnx"]), "level 0 is not an object"),
        (lambda m: m.update(labels=[1, 2]), "labels must be a list"),
        *(
            (lambda m, key=key: m["levels"][1].pop(key), f"level 1: '{key}' is missing")
            for key in ("file", "sha256", "arch", "top1_percent", "latency_ms", "macs_m", "preprocess")
        ),
        (lambda m: m["levels"][1].pop("predicted_latency_ms"), "'predicted_latency_ms' is missing"),
        (level_with("latency_ms", "fast"), "level 1: 'latency_ms' is missing or not a finite number"),
        (level_with("latency_ms", True), "level 1: 'latency_ms' is missing or not a finite number"),
        (level_with("latency_ms", float("nan")), "level 1: 'latency_ms' is missing or not a finite number"),
        (level_with("arch", {"resolution": "big"}), "level 1: arch: 'resolution'"),
        (level_with("preprocess", {}), "level 1: preprocess has the keys"),
        (level_with("file", "level-9.onnx"), r"level-9\.onnx cannot be read"),
        (level_with("file", "level-0.onnx"), r"level-0\.onnx does not match its checksum"),
        (level_with("sha256", "0" * 64), r"level-1\.onnx does not match its checksum"),
        *(
            (level_with("file", file), "leaves the bundle's folder")
            for file in ("../bundle/level-1.onnx", "/etc/hostname", "..", ".", "", "a/../level-1.onnx", "..\\x.onnx")
        ),
    ],
)
def test_wrong_manifests(folder, change, message):
    edit(folder, change)
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(folder)
    assert str(folder) in str(caught.value)


def test_a_link_out_of_the_folder(folder, levels):
    (folder / "level-1.onnx").unlink()
    os.symlink(levels[1][1], folder / "level-1.onnx")
    with pytest.raises(BundleError, match="leaves the bundle's folder"):
        load_bundle(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"ofa-bundle"', "\x00"])
def test_a_manifest_that_is_not_one(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"manifest\.json is not"):
        load_bundle(folder)


def test_a_manifest_in_no_encoding(folder):
    (folder / "manifest.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(BundleError, match="is not JSON"):
        load_bundle(folder)


def test_a_missing_folder_manifest_or_model(folder):
    with pytest.raises(BundleError, match="give the folder of a bundle"):
        load_bundle(folder / "nowhere")
    (folder / "level-2.onnx").unlink()
    with pytest.raises(BundleError, match=r"level-2\.onnx cannot be read"):
        load_bundle(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(BundleError, match=r"manifest\.json cannot be read"):
        load_bundle(folder)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda _: b"", lambda b: b[:100] + b"\x00" + b[101:] + b"\x01"])
def test_a_damaged_model(folder, damage):
    path = folder / "level-1.onnx"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BundleError, match=r"level-1\.onnx does not match its checksum"):
        load_bundle(folder)
