import json
import re
from dataclasses import replace
from html import escape, unescape

import pytest
from plotly.offline import get_plotlyjs

from ofa.core.errors import RunError, TableError
from ofa.pipeline.levels import Level, from_json
from ofa.report.archs import compact
from ofa.report.content import gather
from ofa.report.page import REPORT, page

LOCAL = "targets/local"
FILES = (
    f"{LOCAL}/latency_table-float32.json", f"{LOCAL}/export/levels.json", f"{LOCAL}/front.json", f"{LOCAL}/replay.json",
    "samples.json", "predictor.json", "train.jsonl",
)  # fmt: skip


def own(html):
    """The page without plotly's script."""
    return html.replace(get_plotlyjs(), "")


@pytest.fixture
def html(run):
    REPORT.run(run, lambda done, total, message: None)
    return run.path("report.html").read_text(encoding="utf-8")


def test_the_page_needs_no_other_file(html):
    assert html.count(get_plotlyjs()) == 1
    assert not re.search(r"""(src|href|action|data)\s*=\s*["']?\s*(https?:)?//""", own(html))
    assert not re.search(r"<(link|iframe|object|embed|img|base)\b|@import|url\(", own(html))
    assert "default-src 'none'" in html


def test_nothing_is_left_to_fill_in(html):
    assert not re.search(r"\$\w|\$\{|\bnan\b", own(html))
    assert html.rstrip().endswith("</html>")


def test_all_levels_and_archs_are_there(html, archs):
    text = unescape(own(html))
    for i, arch in enumerate(archs):
        assert compact(arch) in text
        assert json.dumps(dict(arch)) in text
        assert f"<td>level-{i}.onnx</td>" in html
        assert f"<td>{88.125 - i:.2f}</td><td>{90 - i:.2f}</td>" in html
    row = [
        "local", "0", "88.12", "90.00", "4.40 (0.10)", "4.00", "227", "float32", "0.25", "0.500", "5.00", "0.380", "24",
        "level-0.onnx", "1.5e-06",
    ]  # fmt: skip
    assert "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" in html


@pytest.mark.parametrize(
    "name",
    ["fronts", "accuracy_over_latency-0", "latency_agreement-0", "accuracy_agreement", "training", "battery-0"],
)
def test_all_charts_are_there(html, name):
    assert html.count(f'id="{name}"') == 1


def test_key_facts_and_figures_are_there(run, html):
    for text in (
        "small_mobilenet_v3",
        f"{run.family.space.size:,} subnets",
        "digits (10 classes)",
        "4 min 16 s",
        "4 min 21 s",
        "<b>0.625</b>",
        "<b>1.38</b>",
        "70 of 80 images",
    ):
        assert text in html


def test_what_comes_from_elsewhere_is_escaped(run):
    content = gather(run)
    bad = "</script><script>alert(1)</script>"
    arch = {"resolution": 24, bad: 1, f"stage0.block0.{bad}": 2}
    (target,) = content.targets
    level = replace(target.levels[0], file=bad, arch=arch, precision=bad)
    clean = own(page(content))
    samples, facts = [{"arch": arch, "top1_percent": 1.0, "predicted_latency_ms": 1.0}], content.facts | {"family": bad}
    front = [target.front[0] | {"precision": bad, "arch": arch}]
    dirty_target = replace(target, name=bad, levels=[level], samples=samples, front=front)
    dirty = own(page(replace(content, name=bad, facts=facts, targets=[dirty_target])))
    for html in (clean, dirty):
        assert "alert(1)</script>" not in html
        assert "alert('folder')</script>" not in html
        assert "<b>fast</b>" not in html
        assert html.count("<script") == clean.count("<script")
        assert html.count("</script") == clean.count("</script")
    assert f"<h1>{escape(bad)}</h1>" in dirty
    assert escape("<b>fast</b> & cheap") in clean
    assert "&lt;/pre&gt;&lt;script&gt;" in clean


def test_the_same_run_gives_the_same_page(run):
    assert page(gather(run)) == page(gather(run))


def test_losses_of_distillation_are_explained_where_it_was_on(run):
    content = gather(run)
    assert "are not comparable" in page(content)
    assert "are not comparable" not in page(replace(content, distilled=False))


def test_a_run_that_trained_nothing_says_so(run):
    content = gather(run)
    assert "Nothing was trained" not in page(content)
    assert "Nothing was trained" in page(replace(content, epochs=[]))


def test_numbers_that_do_not_exist_are_not_shown(run):
    content = gather(run)
    assert "tau is <b>n/a</b>" in page(replace(content, fit=content.fit | {"kendall_tau": float("nan")}))
    assert "70 of 80 images were classified correctly" in page(content)
    (target,) = content.targets
    without_labels = replace(target, replay=[replace(step, correct=None) for step in target.replay])
    assert "classified correctly" not in page(replace(content, targets=[without_labels]))


@pytest.mark.usefixtures("html")
def test_the_summary_has_the_levels_and_times(run):
    summary = run.read_json("summary.json")
    ((name, target),) = summary["targets"].items()
    levels = [from_json(Level, level) for level in target["levels"]]
    assert levels == run.target(name).levels == run.levels
    assert target["device"]["device"] == "ort-cpu"
    assert target["seconds"] == {"export": 1.5, "bundle": 1.5}
    metrics = {"kendall_tau": 0.625, "rmse_percent": 1.375, "regret_percent": 0.25, "coverage_percent": 91.5}
    assert summary["predictor"] == metrics | {"n_archs": 3}
    assert summary["seconds"] == {"train": 256.0, "fit": 2.2}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("broken", [False, True])
def test_a_missing_or_broken_file_is_named(run, name, broken):
    if broken:
        run.path(name).write_text('{"half', encoding="utf-8")
    else:
        run.path(name).unlink()
    message = "cannot be read .* run (the stage that makes it|`ofa .*`)|is not a readable latency table .* the device"
    with pytest.raises((RunError, TableError), match=f"{re.escape(name)} ({message}) again"):
        REPORT.run(run, lambda done, total, message: None)
    assert not run.path("report.html").exists()
