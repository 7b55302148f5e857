import hashlib
import json

import pytest

from export.web import assets
from ofa.core.errors import DeviceError


def test_the_runtime_is_copied_with_its_version_licence_and_checksums(vendor):
    record = json.loads((vendor / "package.json").read_text())
    assert (record["name"], record["version"], record["license"]) == ("onnxruntime-web", "1.30.0", "MIT")
    assert record["sha256"] == {
        name: hashlib.sha256((vendor / name).read_bytes()).hexdigest() for name in assets._RUNTIME
    }


@pytest.mark.usefixtures("vendor")
def test_every_file_that_a_page_names_is_served():
    served = assets.assets()
    for path, (file, _) in served.items():
        if file.suffix in (".html", ".js") and "vendor" not in path:
            text = file.read_text()
            names = {word.removeprefix("./") for word in text.replace("'", '"').split('"')}
            for name in names:
                if name.endswith((".js", ".mjs", ".css", ".svg")) and name != "plotly.min.js":
                    assert f"/{name}" in served, f"{path} names {name}"


def test_pages_run_no_script_of_their_own_text():
    for page in assets._PAGE.glob("*.html"):
        text = page.read_text()
        assert "<script>" not in text
        assert " on" not in text.replace(" on ", " ").replace(" once", " "), "an event handler in HTML"
        assert "style=" not in text
    for script in assets._PAGE.glob("*.js"):
        assert "innerHTML" not in script.read_text()


def test_without_the_runtime_the_next_step_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(assets, "VENDOR", tmp_path / "nothing")
    with pytest.raises(DeviceError, match=r"the page needs onnxruntime-web.*`make web`"):
        assets.assets()
    with pytest.raises(DeviceError, match="is not onnxruntime-web"):
        assets.copy_runtime(tmp_path)
