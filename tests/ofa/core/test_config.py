from pathlib import Path
from typing import Literal

import pytest
from pydantic import ValidationError

from ofa.core.config import Config, UserPath, validate
from ofa.core.errors import RecipeError, RunError


class Section(Config):
    path: UserPath | None = None
    """A path."""


@pytest.mark.parametrize("text", ["~/pets", Path("~/pets")])
def test_a_tilde_stands_for_the_home_directory(monkeypatch, tmp_path, text):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Section(path=text).path == tmp_path / "pets"
    assert Section.model_validate_json(f'{{"path": "{text}"}}').path == tmp_path / "pets"


@pytest.mark.parametrize("text", ["pets", "/data/pets~", "a/~/b"])
def test_other_paths_stay_as_they_are(text):
    assert Section(path=text).path == Path(text)


@pytest.mark.parametrize("wrong", ["~no-such-user/pets", 3, True])
def test_an_unknown_home_directory_and_other_types_are_refused(wrong):
    with pytest.raises(ValidationError, match="path"):
        Section(path=wrong)


def test_a_section_refuses_unknown_keys_and_changes():
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Section(pth="a")
    with pytest.raises(ValidationError, match="frozen"):
        Section().path = Path("a")


class Empty(Config):
    pass


class Controller(Config):
    policy: Literal["LSTM", "GRU"] = "GRU"
    """A name with upper case."""


@pytest.mark.parametrize(
    ("section", "content", "said"),
    [
        (Section, {"pth": "a"}, "pets: pth: unknown key; did you mean path?"),
        (Controller, {"policy": "lstm"}, "pets: policy = 'lstm': input should be 'LSTM' or 'GRU'"),
        (Empty, {"path": "a"}, "pets: path: unknown key; there are none"),
        (Empty, [1], "pets: [1]: input should be a valid dictionary or instance of Empty"),
        (Empty, None, "pets: None: input should be a valid dictionary or instance of Empty"),
    ],
)
@pytest.mark.parametrize("error", [RecipeError, RunError])
def test_what_is_wrong_with_given_values_is_one_sentence_each(section, content, said, error):
    with pytest.raises(error) as refusal:
        validate(section, content, "pets", error)
    assert str(refusal.value) == said
