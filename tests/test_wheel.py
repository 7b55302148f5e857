"""The wheel, installed away from the checkout. Its dependencies are lent by this environment."""

import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An interpreter that has the wheel and, on its path, the packages it depends on."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", ROOT]
    subprocess.run(build, check=True, capture_output=True)
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    (wheel,) = (folder / "dist").glob("*.whl")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel]
    subprocess.run(install, check=True, capture_output=True)
    site = next((folder / "venv" / "lib").glob("python*/site-packages"))
    (site / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python


def call(python, *arguments, folder):
    done = subprocess.run([python, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_not_the_checkout_that_is_imported(python, tmp_path):
    out = call(python, "-c", "import ofa, supernets, export; print(ofa.__file__)", folder=tmp_path)
    assert str(ROOT) not in out


def test_it_carries_recipes_tables_and_page_assets(python, tmp_path):
    code = "from ofa.pipeline import recipe_file as r; print(len([r.load_recipe(n) for n in r.shipped_recipes()]))"
    assert int(call(python, "-c", code, folder=tmp_path)) == len(list((ROOT / "supernets" / "recipes").glob("*.yaml")))
    tables = json.loads(call(python, "-m", "ofa", "devices", "--json", folder=tmp_path))["tables"]
    assert len(tables) == len(list((ROOT / "latency_luts").glob("*/*.json")))
    code = "from importlib.resources import files; [print(f.name) for f in files('ofa.report').iterdir()]"
    assert {"page.html", "page.css"} <= set(call(python, "-c", code, folder=tmp_path).split())
    for folder in ("page", "site", "vendor"):  # the last one only after `make web`
        code = f"from importlib.resources import files; d = files('export.web') / '{folder}'; "
        code += "[print(f.name) for f in (d.iterdir() if d.is_dir() else ())]"
        here = {path.name for path in (ROOT / "export" / "web" / folder).glob("*")}
        assert set(call(python, "-c", code, folder=tmp_path).split()) == here


@pytest.mark.slow
def test_the_main_job_runs_from_it(python, tiny_recipe_text, tmp_path):
    (tmp_path / "tiny.yaml").write_text(tiny_recipe_text)
    call(python, "-m", "ofa", "run", "tiny.yaml", "--json", folder=tmp_path)
    assert (tmp_path / "runs" / "tiny" / "report.html").stat().st_size > 100_000
