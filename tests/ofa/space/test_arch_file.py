import json

import pytest

from ofa.core.errors import SpaceError
from ofa.space.arch_file import read_archs
from ofa.space.choice import Choice
from ofa.space.search_space import SearchSpace

SPACE = SearchSpace([Choice("resolution", (16, 32)), Choice("width", (0.5, 1.0))])


@pytest.mark.parametrize("key", [None, "front", "samples"])
def test_a_list_of_archs_or_of_entries_with_an_arch_is_read_from_any_file_of_a_run(tmp_path, key):
    path = tmp_path / "archs.json"
    archs = [dict(SPACE.largest), {"arch": dict(SPACE.smallest), "top1_percent": 3}]
    path.write_text(json.dumps(archs if key is None else {"other": [], key: archs}))
    assert read_archs(path, SPACE) == [SPACE.largest, SPACE.smallest]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "cannot read archs from"),
        ("[" * 10**5, "cannot read archs from"),
        ("{}", "must hold a JSON list of archs"),
        ('{"front": 3}', "must hold a JSON list of archs"),
        ("[3]", "must hold a JSON list of archs"),
        ('[{"arch": null}]', "must hold a JSON list of archs"),
        ('[{"arch": {"width": 9}}]', "width = 9 is not allowed"),
    ],
)
def test_a_file_that_lists_no_archs_of_the_space_is_refused(tmp_path, text, message):
    (tmp_path / "archs.json").write_text(text)
    with pytest.raises(SpaceError, match=message):
        read_archs(tmp_path / "archs.json", SPACE)


@pytest.mark.parametrize("name", ["nowhere.json", "."])
def test_a_missing_file_or_a_folder_is_refused(tmp_path, name):
    with pytest.raises(SpaceError, match="cannot read archs from"):
        read_archs(tmp_path / name, SPACE)
