"""What the documentation says of the code is so."""

import json
import re
from configparser import ConfigParser
from importlib.metadata import entry_points
from inspect import signature
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

import ofa
from ofa.cost.counted import macs_m, params_m
from ofa.devices.registry import device_precisions, list_devices
from ofa.pipeline.recipe import Recipe
from ofa.pipeline.recipe_reference import keys

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [*DOCS.parent.glob("*.md"), *DOCS.rglob("*.md")]
SETUP = ConfigParser()
SETUP.read(DOCS.parent / "setup.cfg")
ROWS = re.findall(
    r"^\| `(\w+)` \| [^|]+ \| ([\d to]+) \| ([\d.e+]+) \| (.+) to (.+) \| (.+) to (.+) \|$",
    (DOCS / "families.md").read_text(),
    re.MULTILINE,
)


def test_every_family_is_on_the_page():
    assert sorted(row[0] for row in ROWS) == ofa.list_families()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_numbers_of_families_are_those_of_the_code(row):
    name, pixels, archs, *numbers = row
    family = ofa.create_family(name)
    ends = family.space.rows([family.space.smallest, family.space.largest])
    assert pixels.split(" to ") == [str(pixels) for pixels in sorted({family.resolutions[0], family.resolutions[-1]})]
    assert float(archs) == pytest.approx(family.space.size, rel=0.005)
    for said, counted in zip(numbers, [*params_m(family)(ends), *macs_m(family)(ends)], strict=True):
        assert float(said) == pytest.approx(counted, rel=0.005)


SNIPPETS = re.findall(r"```yaml\n(.*?)```", (DOCS / "training.md").read_text(), re.DOTALL)
INLINE = re.findall(r"`(\w+: \{[^`]*\})`", (DOCS / "training.md").read_text())


def test_training_settings_on_the_page_are_those_of_recipes():
    base = {"name": "x", "family": {"name": "hybrid_small"}, "data": {"name": "digits"}}
    phases = {"phases": [{"strategy": "sandwich", "epochs": 1}]}
    assert (len(SNIPPETS), len(INLINE)) == (4, 3)
    for text in [*SNIPPETS, *INLINE]:
        ((section, settings),) = yaml.safe_load(text).items()
        if section == "family":
            recipe = base | {"family": base["family"] | settings, "train": phases}
        elif section in Recipe.model_fields:
            recipe = base | {"train": phases} | {section: phases | settings if section == "train" else settings}
        else:
            recipe = base | {"train": phases | {section: settings}}
        Recipe.model_validate(recipe)


def _links(page):
    return [link for link in re.findall(r"\]\(([^)\s#]+)", page.read_text()) if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_exist(page):
    assert [link for link in _links(page) if not (page.parent / link).exists()] == []


def test_the_index_of_results_has_every_page():
    results = DOCS / "results"
    assert {*_links(results / "README.md")} == {page.name for page in results.glob("*.md")} - {"README.md"}


@pytest.mark.parametrize("name", ofa.list_families())
def test_the_names_of_choices_are_on_the_page(name):
    section = (DOCS / "families.md").read_text().split("## Choices")[1].split("\n## ")[0]
    for choice in ofa.create_family(name).space.names:
        *place, kind = choice.split(".")
        if place and place[-1] in ("stem", "head"):
            assert f"`{choice}`" in section
        assert re.search(rf"[.`]{kind}`", section), choice


def test_keys_of_recipes_on_the_pages_exist():
    in_recipes = {key.key.replace("[]", "") for key in keys()}
    sections = {key.split(".")[0] for key in in_recipes if "." in key} - {"export"}  # a package as well
    files = (".json", ".jsonl", ".safetensors")
    for page in PAGES:
        named = re.findall(r"`(\w+(?:\.\w+)+)(?:: [^`]*)?`", page.read_text())
        keys_named = {name for name in named if name.split(".")[0] in sections and not name.endswith(files)}
        assert keys_named <= in_recipes, page


def _cells(page, first):
    """The cells of a page's table rows, by the names in code in the first one, under a header that begins so."""
    table = (DOCS / page).read_text().split(f"| {first} |", 1)[1].split("\n\n")[0]
    rows = [[re.findall(r"`([^`]+)`", cell) for cell in row.split("|")[1:-1]] for row in table.split("\n")[2:]]
    return {name: cells for cells in rows for name in cells[0]}


def test_the_options_of_devices_are_on_the_page():
    shown = {name: cells[-1] for name, cells in _cells("latency.md", "name").items()}
    assert sorted(shown) == list_devices()
    for point in entry_points(group="ofa.devices"):
        assert {*shown[point.name]} == {*signature(point.load()).parameters} - {"precision", "batch"}, point.name


def test_the_devices_of_integer_precisions_are_on_the_page():
    for precision, cells in _cells("latency.md", "precision").items():
        if precision.startswith("int8"):
            assert {*cells[-1]} == {name for name in list_devices() if precision in device_precisions(name)}


def test_every_group_of_entry_points_is_on_the_page_of_the_design():
    text = (DOCS / "design.md").read_text()
    groups = {group for group in SETUP["options.entry_points"] if group.startswith("ofa.")}
    assert groups == {*re.findall(r"`(ofa\.\w+)`", text.split("by entry points")[1])}


def test_extras_are_installed_from_the_checkout():
    folders = ("docs", "export", "ofa", "supernets", "benchmarks")
    files = [path for folder in folders for path in (DOCS.parent / folder).rglob("*")]
    for path in [*DOCS.parent.glob("*.md"), *files]:
        if path.suffix in (".md", ".py", ".yaml"):
            text = path.read_text()
            assert not re.search(r"\bofa\[\w+\]", text), f"{path} installs another project from PyPI"
            extras = {name for names in re.findall(r"'\.\[([\w,]+)\]'", text) for name in names.split(",")}
            assert extras <= {*SETUP["options.extras_require"]}, path


def test_archs_on_the_page_of_costs_are_archs():
    (text,) = re.findall(r"```json\n(.*?)```", (DOCS / "latency.md").read_text(), re.DOTALL)
    space = ofa.create_family("small_mobilenet_v3").space
    assert [dict(space.arch(values)) for values in json.loads(text)] == json.loads(text)


def test_a_file_with_a_model_of_timm_is_a_family(tmp_path):
    page = (DOCS / "families.md").read_text()
    (text,) = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def family" in code]
    (tmp_path / "vit.py").write_text(text)
    (settings,) = re.findall(r"`family: (\{name: vit.py.*\})`", page)
    options = yaml.safe_load(settings)["options"]
    family = ofa.create_family(str(tmp_path / "vit.py"), num_classes=5, in_channels=1, **options)
    assert (family.space.names, family.space.size) == (("resolution", "depth"), 9)


def test_the_numbers_of_the_readme_are_those_of_its_snippet():
    text = (DOCS.parent / "README.md").read_text()
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "space.size" in code]
    names = {}
    exec(code.split("\nmacs_m =")[0], names)
    (size,) = re.findall(r"# space.size: about (\S+) archs", code)
    assert float(size) == pytest.approx(names["space"].size, rel=0.01)
    (shown,) = re.findall(r"# a frozen mapping: (\{.*), \.\.\.\}", code)
    assert json.loads(shown + "}").items() <= names["arch"].items()


def test_the_search_on_the_page_runs(monkeypatch):
    """Its first snippet, with functions in place of what a run has learned and measured."""
    family = ofa.create_family("small_mobilenet_v3")
    target = SimpleNamespace(latency_table=lambda: lambda rows: rows.sum(axis=1))
    run = SimpleNamespace(family=family, predictor=lambda: lambda rows: rows[:, 1:].max(axis=1), target=lambda: target)
    monkeypatch.setattr(ofa, "open_run", lambda folder: run)
    names = {"measure": lambda rows: rows.max(axis=1)}
    code = re.findall(r"```python\n(.*?)```", (DOCS / "search.md").read_text(), re.DOTALL)[0]
    exec(code.replace("range(20)", "range(2)").replace('"bayesian"', '"random"'), names)
    assert len(names["front"].rows) > 0
    assert np.all(ofa.size_mib(family)(names["front"].rows) <= 2.0)
