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
    assert (bundle.name, bundle.labels, bundle.targets) == ("tiny", LABELS, {"laptop": {"device": "ort-cpu"}})
    assert [level.file for level in bundle.levels] == ["level-0.graph", "level-1.graph", "level-2.graph"]
    for level, original in zip(bundle.levels, levels, strict=True):
        assert replace(level, file=original.file, sha256="") == replace(original, arch=dict(original.arch))
        assert bundle.read_model(level) == (source / original.file).read_bytes()
    assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name]


def test_a_bundle_without_shared_weights_holds_the_exported_files(plain_folder, folder, levels, source):
    assert sorted(path.name for path in plain_folder.iterdir()) == [
        "level-0.onnx",
        "level-1.onnx",
        "level-2.onnx",
        "manifest.json",
    ]
    bundle, shared = load_bundle(plain_folder), load_bundle(folder)
    assert bundle.weights is None
    for level, same, original in zip(bundle.levels, shared.levels, levels, strict=True):
        model = (source / original.file).read_bytes()
        assert (plain_folder / level.file).read_bytes() == bundle.read_model(level) == model
        assert level == replace(same, file=level.file)


def test_the_manifest_has_the_documented_keys(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    page = (Path(__file__).parents[2] / "docs" / "bundle.md").read_text()
    documented = re.findall(r"^\| `(\w+)`", page.partition("## Format")[2], re.MULTILINE)
    level = manifest["levels"][0]
    assert documented == [*manifest, *manifest["weights"], *level, *level["preprocess"]]
    assert f"version {manifest['version']}" in page
    assert set(asdict(load_bundle(folder).levels[0])) == set(level)


def without(key):
    return lambda manifest: manifest.pop(key)


def level_with(key, value):
    return lambda manifest: manifest["levels"][1].update({key: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("format"), "is not the manifest of a bundle"),
        (without("version"), "has version None"),
        (lambda m: m.update(version=2), "has version 2, this program reads 3"),
        *((without(key), f"'{key}' is missing") for key in ("created", "name", "targets", "labels", "levels")),
        (lambda m: m.update(levels=[]), "at least one level"),
        (lambda m: m.update(levels=["level-0.onnx"]), "level 0: 'level-0.onnx' is not an object"),
        (lambda m: m.update(labels=[1, 2]), "labels that are strings"),
        *(
            (lambda m, key=key: m["levels"][1].pop(key), f"level 1: '{key}' is missing")
            for key in (*Level.__dataclass_fields__, "sha256", "preprocess")
        ),
        (level_with("onnx", "level-1.onnx"), "level 1: 'onnx' is missing or unknown"),
        *((level_with("latency_ms", ms), "level 1: latency_ms = ") for ms in ("fast", True, float("nan"), None)),
        (level_with("latency_ms", 10**400), "is not JSON .* has 401 digits"),
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
                ({"background": [0, 0, 256]}, "background = 256"),
                ({"background": "red"}, "background = 'red'"),
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
            for file in (
                "../plain/level-1.onnx",
                "/etc/hostname",
                "..",
                ".",
                "",
                "a/../level-1.onnx",
                "..\\x.onnx",
                "a\0b",
            )
        ),
    ],
)
def test_a_wrong_manifest_is_refused_by_name(plain_folder, change, message):
    edit(plain_folder, change)
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(plain_folder)
    assert str(plain_folder) in str(caught.value)


def weights_with(key, value):
    return lambda manifest: manifest["weights"].update({key: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("weights"), "'weights' is missing"),
        (lambda m: m.update(weights=None), r"level-0\.graph does not match its checksum"),
        (lambda m: m.update(weights="weights.bin"), "weights: 'weights.bin' is not an object"),
        (lambda m: m["weights"].pop("sha256"), "weights: 'sha256' is missing"),
        (weights_with("bytes", 7), "weights: 'bytes' is missing or unknown"),
        (weights_with("file", 7), "weights: file = 7 is not a str"),
        (weights_with("file", "../weights.bin"), "weights: .* is outside the bundle's folder"),
        (weights_with("file", "missing.bin"), r"missing\.bin cannot be read"),
        (weights_with("sha256", "0" * 64), r"weights\.bin does not match its checksum"),
        (level_with("file", "level-0.graph"), r"level-0\.graph does not match its checksum"),
        (level_with("sha256", "0" * 64), r"level-1\.graph does not match its checksum"),
        (level_with("file", "weights.bin"), r"weights\.bin cannot be assembled: the graph cannot be unpacked"),
        (lambda m: m.update(targets={}), r"describes the targets \[\] and has levels for \['laptop'\]"),
        (lambda m: m["targets"].update(phone={}), r"describes the targets \['laptop', 'phone'\] and has levels for"),
        (level_with("target", "phone"), r"has levels for \['laptop', 'phone'\]"),
        (lambda m: m.update(targets={"laptop": "ort-cpu"}), "each target needs an object"),
    ],
)
def test_wrong_weights_or_targets_are_refused_by_name(folder, change, message):
    edit(folder, change)
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(folder)
    assert str(folder) in str(caught.value)


def test_a_link_out_of_the_folder_is_refused(folder, source):
    for name in ("level-1.graph", "weights.bin"):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        os.symlink(source / "32.onnx", folder / name)
        with pytest.raises(BundleError, match="is outside the bundle's folder"):
            load_bundle(folder)
        (folder / name).unlink()
        (folder / name).write_bytes(content)
    load_bundle(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"ofa-bundle"', "\x00", 100_000 * "["])
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
    for name in ("level-2.graph", "weights.bin", "manifest.json"):
        (folder / name).unlink()
        with pytest.raises(BundleError, match=rf"{name} cannot be read"):
            load_bundle(folder)


DAMAGES = {
    "shorter by a byte": lambda content: content[:-1],
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
    "longer by a byte": lambda content: content + b"\0",
    "a byte set to 0 and one more": lambda content: content[:100] + b"\0" + content[101:] + b"\1",
    "a bit of the last byte": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "a bit of the first byte": lambda content: bytes([content[0] ^ 1]) + content[1:],
    "bytes swapped": lambda content: content[:50] + content[60:70] + content[60:] + content[50:60],
}


@pytest.mark.parametrize("name", ["level-1.onnx", "level-1.graph", "weights.bin"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused(folder, plain_folder, name, damage):
    path = (plain_folder if name.endswith("onnx") else folder) / name
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    message = "does not match its checksum|cannot be assembled: the graph .*; copy or make the bundle again"
    with pytest.raises(BundleError, match=rf"{name} ({message})"):
        load_bundle(path.parent)


def test_a_bundle_of_an_earlier_version_has_a_white_background(plain_folder):
    edit(plain_folder, lambda manifest: [level["preprocess"].pop("background") for level in manifest["levels"]])
    assert {level.preprocess.background for level in load_bundle(plain_folder).levels} == {(255, 255, 255)}
