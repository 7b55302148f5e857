import pytest
import torch

from ofa.core.errors import CheckpointError
from ofa.core.tensors import read_tensors, write_tensors


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
