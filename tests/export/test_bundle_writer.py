import shutil
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from export.bundle import load_bundle
from export.runtime import Runtime
from export.shared_weights import MAX_GRAPH_BYTES
from export.web import assets
from ofa.core.errors import BundleError, DeviceError

LABELS = tuple("abcdefghij")


class KilledError(Exception):
    """Stands for the end of the process."""


def test_a_newer_bundle_takes_the_place_of_an_older_one(folder, levels, write):
    write(folder, levels[1:], name="newer")
    assert load_bundle(folder).name == "newer"
    assert sorted(p.name for p in folder.iterdir()) == [
        "level-0.graph",
        "level-1.graph",
        "manifest.json",
        "weights.bin",
    ]
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


@pytest.mark.parametrize("killed_at", range(1, 12))
def test_after_a_kill_at_any_time_a_bundle_is_written_and_nothing_else_stays(
    folder, levels, write, monkeypatch, killed_at
):
    calls, rename, rmtree, mkdir = count(1), Path.rename, shutil.rmtree, Path.mkdir

    def dying(function):
        def call(*args, **kwargs):
            if next(calls) >= killed_at:  # and then nothing runs any more, not even what cleans up
                raise KilledError
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patched:
        for where, name, function in ((Path, "rename", rename), (shutil, "rmtree", rmtree), (Path, "mkdir", mkdir)):
            patched.setattr(where, name, dying(function))
        with suppress(KilledError):
            write(folder, levels, name="newer")
    write(folder, levels[1:], name="newest")
    assert load_bundle(folder).name == "newest"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_bundle_at_a_link_is_written_where_it_points(levels, write, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "bundle")
    for name in ("first", "second"):
        write(tmp_path / "link", levels, name=name)
        assert load_bundle(tmp_path / "bundle").name == load_bundle(tmp_path / "link").name == name
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_bundle_may_be_the_empty_folder_that_one_is_in(levels, write, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write(Path(), levels)
    assert load_bundle(tmp_path / "here").name


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


def test_what_levels_share_is_stored_once(folder, plain_folder):
    sizes = {path.name: path.stat().st_size for path in (*folder.iterdir(), *plain_folder.iterdir())}
    largest = max(sizes[f"level-{i}.onnx"] for i in range(3))
    assert sum(sizes[f"level-{i}.graph"] for i in range(3)) + sizes["weights.bin"] < 1.15 * largest
    assert sum(sizes[f"level-{i}.onnx"] for i in range(3)) > 2.5 * largest


def test_levels_are_ordered_within_each_target(levels, write, tmp_path):
    phone = [replace(level, target="phone", latency_ms=10 * level.latency_ms) for level in levels]
    bundle = write(tmp_path / "bundle", [levels[0], *phone, *levels[1:]])
    assert list(bundle.targets) == ["laptop", "phone"]
    for target in ("laptop", "phone"):
        of_target = bundle.levels_of(target)
        assert [level.target for level in of_target] == [target] * 3
        assert [level.arch["resolution"] for level in of_target] == [40, 32, 28]
    with pytest.raises(BundleError, match="has no target 'watch'; choose from laptop, phone"):
        bundle.levels_of("watch")
    with pytest.raises(BundleError, match=r"phone: level 1 takes 20\.000 ms, level 2 30\.000 ms; sort the levels"):
        write(tmp_path / "bundle", [levels[0], phone[1], phone[0]])


def test_the_same_levels_for_another_target_cost_a_graph_each(levels, write, folder, tmp_path):
    both = write(tmp_path / "both", [*levels, *(replace(level, target="phone") for level in levels)]).folder
    assert (both / "weights.bin").read_bytes() == (folder / "weights.bin").read_bytes()


def test_each_target_has_a_description_and_levels(levels, write, tmp_path):
    for targets in ({}, {"phone": {}}, {"laptop": {}, "phone": {}}):
        with pytest.raises(BundleError, match="each target needs an object and at least one level"):
            write(tmp_path / "bundle", levels, targets=targets)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_onnx_is_bundled_as_it_is(levels, write, tmp_path):
    (tmp_path / "other.bin").write_bytes(b"another format")
    bundle = write(tmp_path / "bundle", [replace(levels[0], file="other.bin")], source=tmp_path)
    assert bundle.read_model(bundle.levels[0]) == b"another format"
    assert (bundle.folder / "weights.bin").read_bytes() == b""


def test_a_graph_that_is_too_large_to_compress_is_refused(levels, write, tmp_path):
    (tmp_path / "other.bin").write_bytes(bytes(MAX_GRAPH_BYTES))
    level = replace(levels[0], file="other.bin")
    with pytest.raises(BundleError, match="is too large to share weights; write a bundle without"):
        write(tmp_path / "bundle", [level], source=tmp_path)
    assert len(write(tmp_path / "bundle", [level], source=tmp_path, shared=False).levels) == 1


@pytest.mark.usefixtures("vendor")
def test_a_bundle_may_be_a_site(levels, write, plain_folder, tmp_path, images):
    web = [replace(level, format="web") for level in levels]
    site = write(tmp_path / "site", web, site=True)
    assert site.weights is None
    names = {path.relative_to(site.folder).as_posix() for path in site.folder.rglob("*") if path.is_file()}
    assert {"index.html", "runtime.js", "service-worker.js", "vendor/ort.wasm.min.mjs", "level-0.onnx"} <= names
    with Runtime(site.folder) as runtime, Runtime(plain_folder) as plain:
        assert np.array_equal(runtime.predict(images).probabilities, plain.predict(images).probabilities)
    for i in range(3):
        assert (site.folder / f"level-{i}.onnx").read_bytes() == (plain_folder / f"level-{i}.onnx").read_bytes()


def test_without_onnxruntime_web_there_is_no_half_a_site(levels, write, tmp_path, monkeypatch):
    monkeypatch.setattr(assets, "VENDOR", tmp_path / "nothing")
    with pytest.raises(DeviceError, match="make web"):
        write(tmp_path / "site", levels, site=True)
    assert [path.name for path in tmp_path.iterdir()] == []
