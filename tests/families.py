"""The registered families as parameters of tests."""

import pytest

import ofa

VARIANTS = (
    "attentive_mobilenet",
    "autoformer_base",
    "autoformer_small",
    "hybrid",
    "ofa_proxyless",
    "s3_base",
    "s3_small",
)
"""Families whose blocks another family has as well: their tests are slow."""

FAMILIES = [pytest.param(name, marks=pytest.mark.slow if name in VARIANTS else ()) for name in ofa.list_families()]
