"""The census sample that comes with the package (see ATTRIBUTION.md)."""

from __future__ import annotations

from pathlib import Path

LABEL = "income_bracket"  # of both its schemas
NAME = "census"  # what a user writes instead of a path to mean this sample
DATA = Path(__file__).with_name("census.csv.xz")
SCHEMA = Path(__file__).with_name("schema.yaml")
ESTIMATOR_SCHEMA = Path(__file__).with_name("estimator_schema.yaml")
