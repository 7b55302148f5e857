import json
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ofa.core.errors import DataError
from ofa.data.config import DataConfig
from ofa.data.load import load_data
from ofa.data.overview import findings

VENDORS, CLASSES, N = ("google", "twitter"), ("drink", "keycap", "arrow"), 6


@pytest.fixture
def modules(tmp_path):
    """A folder as npm makes it: six emoji of three classes by two vendors, one of them by one vendor alone."""
    rng, emojis = np.random.default_rng(0), []
    for order, (name, i) in enumerate(product(CLASSES, range(N))):
        drawn = {f"has_img_{vendor}": (name, i, vendor) != ("drink", 0, "twitter") for vendor in VENDORS}
        image = f"{name}-{i}.png"
        emojis.append({"image": image, "sort_order": order, "subcategory": name, "category": "Things", **drawn})
        for vendor in VENDORS:
            if drawn[f"has_img_{vendor}"]:
                path = tmp_path / f"emoji-datasource-{vendor}" / "img" / vendor / "64" / image
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (8, 8, 4), dtype=np.uint8)).save(path)
    write(tmp_path, emojis)
    return tmp_path


def write(folder, emojis):
    for vendor in VENDORS:
        (folder / f"emoji-datasource-{vendor}" / "emoji.json").write_text(json.dumps(emojis[::-1]))


def load(folder, **options):
    return load_data(DataConfig(name="emoji", folder=folder, options={"min_emoji": 5} | options))


def names(images):
    return {Path(images.store.name(position)).name for position in images.positions.tolist()}


def test_all_pictures_of_an_emoji_are_in_one_split(modules):
    data = load(modules)
    splits = [data.train, data.validation, data.test]
    assert data.labels == ("arrow", "drink", "keycap")
    assert sum(map(len, splits)) == 2 * 3 * N - 1
    assert set.union(*map(names, splits)) == {f"{name}-{i}.png" for name in CLASSES for i in range(N)}
    for first, second in combinations(splits, 2):
        assert not names(first) & names(second)
    for images in splits:
        assert {data.labels[label] for label in images.labels.tolist()} == set(CLASSES)
        for i in range(len(images)):
            assert Path(images.store.name(int(images.positions[i]))).name.startswith(data.labels[int(images.labels[i])])


def test_an_emoji_that_looks_like_another_one_is_left_out(modules):
    folder = modules / "emoji-datasource-twitter" / "img" / "twitter" / "64"
    (folder / "arrow-1.png").write_bytes((folder / "arrow-2.png").read_bytes())
    data = load(modules)
    kept = names(data.train) | names(data.validation) | names(data.test)
    assert "arrow-1.png" in kept
    assert "arrow-2.png" not in kept
    assert findings(data) == []


def test_options_choose_vendors_and_classes(modules):
    data = load(modules, vendors=["twitter"])
    assert len(data.train) + len(data.validation) + len(data.test) == 3 * N - 1
    emojis = json.loads((modules / "emoji-datasource-google" / "emoji.json").read_text())
    write(modules, [one | {"category": one["subcategory"][:1]} for one in emojis][::-1])
    assert load(modules, label="category").labels == ("a", "d", "k")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"vendors": ["apple"]}, r"no package emoji-datasource-apple in .*; run `npm install emoji-datasource-apple`"),
        ({"label": "name"}, "label = 'name' and min_emoji = 5 are not both allowed; label is subcategory or"),
        ({"min_emoji": 2}, "min_emoji = 2 are not both allowed; .* min_emoji 3 or more"),
        ({"min_emoji": 7}, r"no subcategory in .*emoji\.json has 7 emoji; lower min_emoji in data.options"),
    ],
)
def test_what_is_wrong_with_options_is_one_error(modules, options, problem):
    with pytest.raises(DataError, match=problem):
        load(modules, **options)


def test_missing_packages_are_one_error_that_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (None, tmp_path):
        with pytest.raises(DataError, match=r"no package emoji-datasource-google in .*run `npm install emoji-"):
            load(folder)


@pytest.mark.parametrize("content", ["", "[", "{}", '[{"image": "a.png"}]', "[1]"])
def test_a_broken_list_of_emoji_is_one_error(modules, content):
    (modules / "emoji-datasource-google" / "emoji.json").write_text(content)
    with pytest.raises(DataError, match=r"cannot read .*emoji\.json \(.*\); install the package again|no subcategory"):
        load(modules)
