import errno
import os
import time

import numpy as np
import pytest

from ofa.core import files
from ofa.data import index
from ofa.data.index import Listing, by_split, forget, index_file, kept


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ofa"


@pytest.fixture
def source(tmp_path, cache):  # noqa: ARG001  # writes there
    """A source whose listing is kept, and the number of times that it was made."""
    table = tmp_path / "table"
    table.write_text("long ago")
    age(table)

    class Source:
        path, n_made, n_images = table, 0, 20_000

        def make(self):
            self.n_made += 1
            arrays = {"labels": np.arange(self.n_images) % 7, "places": np.ones((self.n_images, 3))}
            return Listing({"classes": ["ä", "b"]}, by_split({"train": arrays}), [str(self.path)], ["a note"])

        def __call__(self):
            return kept("table", self.make)

    return Source()


def age(path, seconds=100):
    os.utime(path, ns=(time.time_ns() - seconds * 10**9,) * 2)


def test_a_listing_is_made_once_and_read_as_it_was(source, cache):
    made, read = source(), source()
    assert source.n_made == 1
    assert [path.name for path in cache.iterdir()] == [index_file("table").name]
    assert (made.facts, made.read, made.notes) == (read.facts, read.read, read.notes)
    for name, array in made.splits["train"].items():
        assert array.dtype == read.splits["train"][name].dtype
        assert np.array_equal(array, read.splits["train"][name])


def test_forgotten_listings_are_made_again(source, cache):
    source()
    forget()
    assert not list(cache.iterdir())
    source()
    assert source.n_made == 2


def test_small_listings_are_not_kept(source, cache):
    source.n_images = 9_999
    source()
    source()
    assert source.n_made == 2
    assert not cache.exists()


@pytest.mark.parametrize("change", ["time", "size", "missing"])
def test_a_listing_is_made_again_when_what_it_was_read_from_changes(source, change):
    source()
    time_ns = source.path.stat().st_mtime_ns
    if change == "missing":
        source.path.unlink()
    elif change == "size":
        source.path.write_text("another size")
        os.utime(source.path, ns=(time_ns, time_ns))
    else:
        age(source.path, 50)
    source()
    assert source.n_made == 2


def test_what_changes_while_it_is_read_is_not_kept(source):
    source.path.write_text("just now")
    source()
    source()
    assert source.n_made == 2


@pytest.mark.parametrize("damage", [lambda whole: b"", lambda whole: b"no archive", lambda whole: whole[:-3000]])
def test_an_unreadable_index_is_made_again(source, damage):
    source()
    file = index_file("table")
    file.write_bytes(damage(file.read_bytes()))
    assert source().facts == {"classes": ["ä", "b"]}
    assert source.n_made == 2
    source()
    assert source.n_made == 2


def test_changed_bytes_of_an_index_are_noticed(source):
    listing = source()
    file = index_file("table")
    whole, rng = file.read_bytes(), np.random.default_rng(0)
    for position in rng.integers(0, len(whole), 100).tolist():
        changed = bytearray(whole)
        changed[position] ^= 255
        file.write_bytes(changed)
        again = source()
        assert again.facts == listing.facts
        assert np.array_equal(again.arrays["train.labels"], listing.arrays["train.labels"])


def test_a_full_disk_loses_nothing_and_is_said(source, cache, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    listing = source()
    assert len(listing.arrays["train.labels"]) == source.n_images
    assert listing.notes[0] == "a note"
    assert listing.notes[1].startswith(f"the list of images cannot be kept in {index_file('table')} (")
    assert listing.notes[1].endswith("No space left on device); every start looks at all files again")
    assert not list(cache.iterdir())


def test_a_cache_folder_that_cannot_be_made_is_said(source, cache):
    cache.parent.write_text("a file in its place")
    assert "cannot be kept" in source().notes[1]
    assert source.n_made == 1


def test_listings_of_another_name_format_or_pillow_are_others(monkeypatch):
    names = {index_file("a"), index_file("b")}
    monkeypatch.setattr(index, "_FORMAT", index._FORMAT + 1)
    names.add(index_file("a"))
    monkeypatch.setattr(index.PIL, "__version__", "0.0")
    names.add(index_file("a"))
    assert len(names) == 4


@pytest.mark.parametrize("name", ["plain", "with\nlines", "ä ö \u2603", os.fsdecode(b"no \xff utf-8"), '"quoted\\"'])
def test_a_listing_holds_whatever_a_file_is_called(source, name):
    source.path = source.path.rename(source.path.with_name(name))
    first, second = source(), source()
    assert source.n_made == 1
    assert first.read == second.read == [str(source.path)]
