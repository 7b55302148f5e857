import argparse
import datetime
import io
import os
import pickle
import subprocess
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models import load_state_dict
from torch import nn

from ofa.core.errors import CheckpointError
from ofa.core.tensors import read_state_dict, read_tensors, write_tensors


def tensors():
    generator = torch.Generator().manual_seed(0)
    full = torch.randn(8, 6, 5, 5, generator=generator)
    return {
        "plain": full,
        "view": full[:3, :2, 1:4, 1:4],
        "leading": full.clone()[:3],
        "channels_last": full.contiguous(memory_format=torch.channels_last),
        "half": full.to(torch.bfloat16),
        "count": torch.tensor(3),
        "flags": full > 0,
        "empty": torch.zeros(0, 4),
        "parameter": torch.nn.Parameter(full[0].clone()),
        "not_numbers": torch.tensor([float("nan"), float("inf"), -0.0]),
    }


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, tensors(), {"family": "tiny"})
    read, metadata = read_tensors(path)
    assert metadata == {"family": "tiny"}
    assert read.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert (read[name].dtype, read[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(read[name].nan_to_num(9), tensor.detach().nan_to_num(9))
    assert list(tmp_path.iterdir()) == [path]


def test_no_metadata_is_an_empty_dict(tmp_path):
    write_tensors(tmp_path / "a", {"a": torch.ones(2)})
    assert read_tensors(tmp_path / "a")[1] == {}


def test_a_view_brings_only_itself(tmp_path):
    write_tensors(tmp_path / "a", {"a": torch.zeros(1000, 1000)[:2]})
    assert (tmp_path / "a").stat().st_size < 10_000


def test_read_tensors_do_not_change_with_the_file(tmp_path):
    write_tensors(tmp_path / "a", {"a": torch.ones(4)})
    read = read_tensors(tmp_path / "a")[0]["a"]
    write_tensors(tmp_path / "a", {"a": torch.zeros(4)})
    read += 1
    assert torch.equal(read, torch.full((4,), 2.0))
    assert torch.equal(read_tensors(tmp_path / "a")[0]["a"], torch.zeros(4))


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, tensors(), {"family": "tiny"})
    whole = path.read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"a\.safetensors is missing, truncated or not a safetensors file"):
            read_tensors(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + bytes(60), b"\xff" * 64, b'{"a": 1}'])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read_tensors(tmp_path / "a")


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(CheckpointError, match="is missing"):
            read_tensors(path)


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        write_tensors(tmp_path / "nowhere" / "a", {"a": torch.ones(2)})


def test_a_failed_write_leaves_the_older_file(tmp_path):
    write_tensors(tmp_path / "a", {"a": torch.ones(2)})
    with pytest.raises(Exception, match="int"):
        write_tensors(tmp_path / "a", {"a": torch.zeros(2)}, {"step": 3})
    assert torch.equal(read_tensors(tmp_path / "a")[0]["a"], torch.ones(2))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


# Files of torch.save


FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def network():
    """Return a network after a training step and its optimizer."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 1, 8, 8, generator=generator)).square().sum().backward()
    optimizer.step()
    return model, optimizer


def save(content, path, zipped):
    torch.save(content, path, _use_new_zipfile_serialization=zipped)


def assert_same_tensors(read, expected):
    assert read.keys() == expected.keys()
    assert all(torch.equal(tensor, read[name]) for name, tensor in expected.items())


class Config(dict):
    """A dictionary with attributes, as configuration packages have them."""

    def __init__(self, **values):
        super().__init__(values)
        self.frozen = True


class Meter:
    """An object of a class that whoever reads the file may not have."""

    def __init__(self):
        self.value, self.history = np.float32(0.5), np.arange(3)


@FORMATS
def test_a_training_checkpoint_with_much_beside_the_weights_is_read(tmp_path, zipped):
    model, optimizer = network()
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)
    content = {
        "arch": "resnet18",
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1, betas=(0.9, 0.999), output=Path("out"), dtype=torch.float16),
        "config": Config(epochs=10, model=Config(depth=18)),
        "best": np.float64(71.5),
        "step": np.int64(7),
        "losses": np.arange(6.0).reshape(2, 3),
        "meters": defaultdict(Meter, {"loss": Meter()}),
        "when": datetime.timedelta(seconds=3),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "rng": torch.get_rng_state(),
        "model": model.state_dict(),
    }
    save(content, tmp_path / "last.pth", zipped)
    read = read_state_dict(tmp_path / "last.pth")
    assert_same_tensors(read, model.state_dict())
    assert all(type(tensor) is torch.Tensor and not tensor.requires_grad for tensor in read.values())


@FORMATS
def test_parameters_are_read_as_tensors(tmp_path, zipped):
    model, _ = network()
    save(dict(model.named_parameters()), tmp_path / "a.pth", zipped)
    read = read_state_dict(tmp_path / "a.pth")
    assert_same_tensors(read, dict(model.named_parameters()))
    assert {type(tensor) for tensor in read.values()} == {torch.Tensor}


KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")


@pytest.mark.parametrize("first", range(4))
def test_of_several_state_dicts_the_first_in_timms_order_is_read(tmp_path, first):
    content = {"other": {"a": torch.tensor(-1.0)}}
    for number in reversed(range(first, 4)):
        content[KEYS[number]] = {"a": torch.tensor(float(number))}
    save(content, tmp_path / "a.pth", zipped=True)
    assert read_state_dict(tmp_path / "a.pth")["a"] == first


@pytest.mark.parametrize("missing", [None, {}])
def test_an_average_that_was_not_kept_is_passed_over(tmp_path, missing):
    save({"model_ema": missing, "model": {"a": torch.ones(2)}}, tmp_path / "a.pth", zipped=True)
    assert_same_tensors(read_state_dict(tmp_path / "a.pth"), {"a": torch.ones(2)})


def test_the_order_is_timms(tmp_path):
    """As timm itself loads the file."""
    content = {key: {"a": torch.tensor(float(number))} for number, key in enumerate(KEYS)}
    while content:
        save(content, tmp_path / "a.pth", zipped=True)
        assert load_state_dict(tmp_path / "a.pth") == read_state_dict(tmp_path / "a.pth")
        del content[next(iter(content))]


@pytest.mark.parametrize(
    "wrap",
    [
        "module.{}",
        "_orig_mod.{}",
        "module._orig_mod.{}",
        "_orig_mod.module.{}",
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_prefixes_of_wrappers_are_removed(tmp_path, wrap, suffix):
    expected = {"0.weight": torch.ones(2), "1.module.bias": torch.zeros(3)}
    content = {wrap.format(name): tensor for name, tensor in expected.items()}
    write = write_tensors if suffix == ".safetensors" else lambda path, content: save(content, path, zipped=True)
    write(tmp_path / f"a{suffix}", content)
    assert_same_tensors(read_state_dict(tmp_path / f"a{suffix}"), expected)


def test_names_of_really_wrapped_networks_are_those_of_the_network(tmp_path):
    model, _ = network()
    compiled = nn.DataParallel(torch.compile(model))
    model_with_compiled_part = nn.Sequential(model[0], torch.compile(model[1]))
    for wrapped in (compiled, torch.compile(model), model_with_compiled_part):
        assert any("_orig_mod" in name for name in wrapped.state_dict())
        save(wrapped.state_dict(), tmp_path / "a.pth", zipped=True)
        assert_same_tensors(read_state_dict(tmp_path / "a.pth"), model.state_dict())


def test_a_submodule_called_module_keeps_its_name(tmp_path):
    tensors = {"module.weight": torch.ones(2), "head.weight": torch.zeros(2)}
    save(tensors, tmp_path / "a.pth", zipped=True)
    assert_same_tensors(read_state_dict(tmp_path / "a.pth"), tensors)


# Hostile files


class Hostile:
    """An object whose pickle calls a function when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class HostileState:
    """An object whose class runs code when its state is set."""

    def __init__(self, marker):
        self.marker = marker

    def __setstate__(self, state):
        state["marker"].touch()


class HostileItems(dict):
    """A dictionary whose class runs code when items are added."""

    def __init__(self, marker):
        super().__init__(marker=marker)

    def __setitem__(self, key, value):
        value.touch()


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def touch(marker):
    return f"open({str(marker)!r}, 'w').close()"


HOSTILE = {
    "os.system": lambda marker: Hostile(os.system, f"touch {marker}"),
    "eval": lambda marker: Hostile(eval, touch(marker)),
    "exec": lambda marker: Hostile(exec, touch(marker)),
    "subprocess": lambda marker: Hostile(subprocess.run, ["touch", str(marker)]),
    "open": lambda marker: Hostile(open, str(marker), "w"),
    "pathlib": lambda marker: Hostile(Path.touch, marker),
    "torch.load": lambda marker: Hostile(torch.storage._load_from_bytes, saved(Hostile(exec, touch(marker)))),
    "setstate": HostileState,
    "setitem": HostileItems,
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("place", ["beside", "instead", "inside"])
@FORMATS
def test_a_hostile_file_runs_nothing(tmp_path, name, place, zipped):
    marker = tmp_path / "ran"
    hostile = HOSTILE[name](marker)
    weights = {"a": torch.ones(2)}
    content = {"beside": {"args": hostile, "model": weights}, "instead": hostile, "inside": weights | {"b": hostile}}
    save(content[place], tmp_path / "a.pth", zipped)
    if place == "beside" and name not in ("os.system", "pathlib"):
        assert_same_tensors(read_state_dict(tmp_path / "a.pth"), weights)
    else:
        with pytest.raises(CheckpointError, match=r"cannot be skipped without running code|holds no state dict"):
            read_state_dict(tmp_path / "a.pth")
    assert not marker.exists()


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_pickle_that_torch_did_not_write_runs_nothing(tmp_path, name, protocol):
    marker = tmp_path / "ran"
    (tmp_path / "a.pth").write_bytes(4 * pickle.dumps({"model": HOSTILE[name](marker)}, protocol))
    with pytest.raises(CheckpointError):
        read_state_dict(tmp_path / "a.pth")
    assert not marker.exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_pickle_itself_would_run_the_hostile_files(tmp_path, name):
    """Otherwise the tests above would pass with any reader."""
    loaded = pickle.loads(pickle.dumps(HOSTILE[name](tmp_path / "ran")))
    getattr(loaded, "close", lambda: None)()
    assert (tmp_path / "ran").exists()


def test_classes_that_a_file_names_are_not_trusted_afterwards(tmp_path):
    save({"model": {"a": torch.ones(2)}, "x": Meter()}, tmp_path / "a.pth", zipped=True)
    before = torch.serialization.get_safe_globals()
    read_state_dict(tmp_path / "a.pth")
    assert torch.serialization.get_safe_globals() == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "a.pth")


# Other files


def test_objects_that_cannot_be_skipped_are_named(tmp_path):
    save({"x": Hostile(os.system, "true"), "model": {"a": torch.ones(2)}}, tmp_path / "a.pth", zipped=True)
    with pytest.raises(CheckpointError, match=r"cannot be skipped .*\(it refers to posix\.system\); save the"):
        read_state_dict(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "content", [[torch.zeros(2)], {0: torch.zeros(2)}, {"a": 3}, {}, torch.zeros(2), {"model": [1]}, nn.Linear(2, 2)]
)
def test_files_without_a_state_dict_are_refused(tmp_path, content):
    save(content, tmp_path / "a.pth", zipped=True)
    with pytest.raises(CheckpointError, match=r"holds no state dict .*save model\.state_dict\(\)"):
        read_state_dict(tmp_path / "a.pth")


@FORMATS
def test_a_truncated_file_is_refused(tmp_path, zipped):
    path = tmp_path / "a.pth"
    save(network()[0].state_dict(), path, zipped)
    whole = path.read_bytes()
    for length in (0, 1, 30, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="is truncated or not a checkpoint"):
            read_state_dict(path)


@pytest.mark.parametrize("content", [b"PK\x03\x04 and no more", b"\xff" * 64, b"a text", b"\x80\x02."])
def test_files_that_are_no_checkpoint_are_refused(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="is truncated or not a checkpoint"):
        read_state_dict(tmp_path / "a.pth")


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint .*nowhere\.pth; give the path"):
        read_state_dict(tmp_path / "nowhere.pth")


def test_equal_tensors_and_metadata_give_equal_files(tmp_path):
    """The order of metadata is drawn anew for each file, not for each process."""
    metadata = {str(i): "ä" * i for i in range(9)}
    tensors = {"ä": torch.arange(3.0), "b": torch.zeros(2, 2)}
    for i in range(5):
        write_tensors(tmp_path / f"{i}.safetensors", tensors, metadata)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    read, read_metadata = read_tensors(tmp_path / "0.safetensors")
    assert read["ä"].tolist() == [0.0, 1.0, 2.0]
    assert read_metadata == metadata
