import pytest
import yaml

from ofa.core.errors import RecipeError
from ofa.pipeline.recipe import Recipe
from ofa.pipeline.recipe_file import load_recipe, shipped_recipes


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_load_and_survive_their_own_yaml(name):
    recipe = load_recipe(name)
    assert Recipe.model_validate(yaml.safe_load(recipe.to_yaml())) == recipe


def test_digits_and_fashion_mnist_are_shipped():
    assert {"digits", "fashion_mnist"} <= set(shipped_recipes())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"color": 1}, "color: unknown key"),
        ({"train": {"phases": [], "lr": 0.1}}, "phases is empty, which requires initial_weights"),
        ({"train": {"phases": [{"strategy": "full", "epochs": 0}]}}, "train.phases.0.epochs = 0"),
        ({"train": {"phases": [{"strategy": "magic", "epochs": 1}]}}, "train.phases.0.strategy = 'magic'"),
        ({"train": {"phases": [{"strategy": "full", "epochs": 1}], "lr": -0.1}}, "train.lr = -0.1"),
        (
            {"train": {"phases": [{"strategy": "full", "epochs": 1}], "learning_rate": 1}},
            "train.learning_rate: unknown",
        ),
        ({"train": {"phases": [{"strategy": "full", "epochs": "ten"}]}}, "train.phases.0.epochs = 'ten'"),
        (
            {"train": {"phases": [{"strategy": "full", "epochs": 1}], "optimizer": "sgdd"}},
            "train.optimizer = 'sgdd': timm makes no optimizer of this name",
        ),
        (
            {"finetune": {"epochs": 1, "optimizer": "adamv"}},
            "finetune.optimizer = 'adamv': timm makes no optimizer of this name",
        ),
        ({"targets": [{"name": "a", "limits": [{"latency_ms": -2.0}]}]}, "targets.0.limits.0.latency_ms = -2.0"),
        ({"targets": [{"name": "a", "limits": [{"latency_ms": float("nan")}]}]}, "targets.0.limits.0.latency_ms"),
        ({"targets": [{"name": "a", "limits": [{"speed": 1.0}]}]}, "targets.0.limits.0.speed"),
        ({"targets": [{"name": "a", "limits": [{}]}]}, "limits has an empty entry"),
        ({"targets": [{"name": "a", "options": {"batch": 8}}]}, "options has 'batch', which is a key of the target"),
        ({"targets": [{"name": "a", "objective": "energy_mj"}]}, "energy_mj requires the power of the device"),
        ({"targets": [{"name": "a"}, {"name": "b"}, {"name": "a"}]}, "targets has the name 'a' twice"),
        ({"targets": [{"name": "../a"}]}, "targets.0.name = '../a'"),
        ({"targets": [{"device": "ort-cpu"}]}, "targets.0.name: missing"),
        ({"targets": []}, "targets = []"),
        ({"targets": [{"name": "a", "precision": "int4"}]}, "targets.0.precision = 'int4'"),
        ({"search": {"levels": 3}}, "search.levels moved to the list of targets"),
        ({"search": {"algorithm": "nsga3"}}, "unknown search algorithm 'nsga3'; did you mean nsga2?"),
        (
            {"search": {"settings": {"mutate": 1}}},
            "search algorithm 'nsga2': mutate: unknown key; did you mean mutate_probability?",
        ),
        ({"search": {"settings": {"population": 8}}}, "settings has 'population', which is a key of search itself"),
        ({"profile": {"device": "ort-cpu"}}, "profile.device moved to the list of targets"),
        ({"name": "../up"}, "name = '../up'"),
        ({"seed": True}, "seed = True"),
        ({"train": None}, "train = None"),
    ],
)
def test_what_is_wrong_is_named_with_its_path_in_the_file(tiny_yaml, tmp_path, change, said):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(tiny_yaml.read_text()) | change))
    with pytest.raises(RecipeError, match=str(path)) as error:
        load_recipe(str(path))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "not readable YAML"),
        ("- 1", "must hold keys and values"),
        ("!!python/object/apply:os.system ['true']", "not readable YAML"),
        ("name: x", "family: missing"),
    ],
)
def test_broken_files_are_refused(tmp_path, text, said):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=said):
        load_recipe(str(path))


def test_an_unknown_name_lists_the_shipped_ones():
    with pytest.raises(RecipeError, match=r"no recipe 'digit'; did you mean digits\?, or give the path"):
        load_recipe("digit")
