"""Tests of what all pages of results share."""

import numpy as np

from benchmarks import page


def test_a_page_has_its_introduction_then_the_machine_then_the_sections(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(page, "machine", lambda: "a machine")
    page.write_page("speed", "\n# Speed\n", "one\n", "", "two")
    assert (tmp_path / "results/speed.md").read_text() == "# Speed\n\nMachine: a machine.\n\none\n\ntwo\n"


def test_a_table_has_a_rule_as_wide_as_its_header():
    assert page.table("a | b | c", ["1 | 2 | 3"]) == "| a | b | c |\n| --- | --- | --- |\n| 1 | 2 | 3 |"


def test_the_median_comes_with_the_10th_and_90th_percentiles():
    assert page.median_range(np.arange(101.0), ".1f") == "50.0 (10.0 to 90.0)"
