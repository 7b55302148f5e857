"""What holds for all sources that keep what they found in large folders."""

import os
import time
from multiprocessing.reduction import ForkingPickler

import pytest
import torch.multiprocessing  # lets processes share the memory of tensors

from ofa.data import index
from ofa.data.load import load_data
from ofa.data.sources import csv_file, image_folder, webdataset

SOURCES = {"image_folder": image_folder, "csv": csv_file, "webdataset": webdataset}


@pytest.fixture(params=SOURCES)
def source(request, write, tmp_path, monkeypatch):
    """A data set of one source whose listing is kept: its configuration, and the times that files were looked at."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / f"{tmp_path.name}-cache"))
    monkeypatch.setattr(index, "_WORTH_KEEPING", 1)
    config, module, looks = write(request.param), SOURCES[request.param], []
    whole = module._listing
    monkeypatch.setattr(module, "_listing", lambda *given: looks.append(1) or whole(*given))
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.utime(path, ns=(time.time_ns() - 10**11,) * 2)
    return config, looks


def test_files_are_looked_at_once(source):
    config, looks = source
    first, second = load_data(config), load_data(config)
    assert len(looks) == 1
    assert first.info == second.info
    assert first.notes == second.notes
    for images, again in ((first.train, second.train), (first.test, second.test)):
        assert all(torch.equal(images[i][0], again[i][0]) for i in range(len(images)))
        assert [images.name(i) for i in range(len(images))] == [again.name(i) for i in range(len(images))]


def test_files_are_looked_at_again_when_something_changes(source, tmp_path):
    config, looks = source
    load_data(config)
    for path in sorted(path for path in tmp_path.rglob("*") if path.is_file()):
        os.utime(path, ns=(time.time_ns() - 10**10,) * 2)
        load_data(config)
        assert len(looks) == 2
        looks.pop()


def test_what_is_known_of_files_is_not_copied_into_each_worker(source):
    config, _ = source
    images = load_data(config).train
    sent = len(ForkingPickler.dumps(images))
    tripled = images.subset(torch.arange(len(images)).repeat(300).numpy())
    assert len(tripled) > 10_000
    assert len(ForkingPickler.dumps(tripled)) < sent + 200


def test_files_are_looked_at_once_from_whichever_folder_a_run_starts(source, tmp_path, monkeypatch):
    config, looks = source
    monkeypatch.chdir(tmp_path)
    relative = config.model_copy(update={"folder": config.folder.relative_to(tmp_path)})
    first = load_data(relative)
    monkeypatch.chdir(tmp_path.parent)
    again = load_data(config)
    assert len(looks) == 1
    assert first.info == again.info
