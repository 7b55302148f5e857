"""Tests of the words on how accuracies agree."""

import numpy as np

from benchmarks.agreement import agreement, mean_std


def test_agreement_of_accuracies_with_themselves_is_perfect():
    percent = np.array([[70.0, 75.0, 80.0], [71.0, 74.0, 79.0]])
    lines = agreement(percent - [[0.2, 0.5, 0.2]], percent).splitlines()
    assert lines[0] == "- Mean gap (inherited minus alone): -0.30 ± 0.00 points."
    assert lines[1].startswith("- Worst arch: -0.50 points; 2 of 3 archs lose at most 0.3")
    assert lines[2].startswith("- Kendall tau between inherited and alone: 1.000 ± 0.000;")


def test_the_mean_of_one_seed_has_no_standard_deviation():
    assert mean_std(np.array([81.234])) == "81.23"
    assert mean_std(np.array([1.0, 3.0]), "+.1f") == "+2.0 ± 1.4"
