"""cloudbuild.yaml is what Cloud Build takes, by its published schema and the rules that it states in words."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from servegraph.deploy_version.discovery import load

ROOT = Path(__file__).parents[2]
BUILD: dict[str, Any] = yaml.safe_load((ROOT / "cloudbuild.yaml").read_text())
# https://cloud.google.com/build/docs/configuring-builds/substitute-variable-values
BUILT_IN = {"PROJECT_ID", "BUILD_ID", "COMMIT_SHA", "LOCATION", "PROJECT_NUMBER"}


def problems(build: dict[str, Any]) -> list[str]:
    found = load("cloudbuild", "v1").problems("cloudbuild.projects.builds.create", {"projectId": "p"}, build)
    ids: set[str] = set()
    for step in build["steps"]:
        found += [f"{step['id']} waits for {other}" for other in step.get("waitFor", []) if other not in {"-", *ids}]
        ids.add(step["id"])
    text = yaml.safe_dump({key: value for key, value in build.items() if key != "substitutions"})
    used = set(re.findall(r"\$\{?([_A-Z][A-Z0-9_]+)\}?", text)) | set(re.findall(r"os\.environ\[[\"']+(\w+)", text))
    known = set(build["substitutions"])
    found += [f"{name} is not defined" for name in sorted(used - known - BUILT_IN)]
    return found + [f"{name} is not used" for name in sorted(known - used)]


def test_the_build_is_one_that_the_service_takes():
    assert problems(BUILD) == []


def changed(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(BUILD), **changes}


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (changed(timeOut="1s"), "unknown field"),
        (changed(timeout="30m"), "google-duration"),
        (changed(options={"machineType": "E2_HUGE"}), "is not one of"),
        (changed(options={"machineTyp": "E2_HIGHCPU_8"}), "unknown field"),
        (changed(steps=[{**BUILD["steps"][0], "waitFor": ["later"]}]), "waits for later"),
        (changed(substitutions={**BUILD["substitutions"], "_UNUSED": ""}), "_UNUSED is not used"),
        (changed(images=["$_REGISTRY/x"]), "_REGISTRY is not defined"),
    ],
)
def test_what_it_would_not_take_is_found(build, word):
    assert word in " ".join(problems(build))


def test_every_substitution_is_documented_and_every_image_built():
    text = (ROOT / "cloudbuild.yaml").read_text()
    for name in BUILD["substitutions"]:
        assert re.search(rf"^#   {name} ", text, re.MULTILINE), name
    for image in ("slim", "tensorflow", "estimator", "serving"):
        assert (ROOT / f"images/{image}/Dockerfile").is_file()
        assert f"python-{image}" in " ".join(BUILD["images"])


def test_the_version_is_the_packages():
    import servegraph

    assert BUILD["substitutions"]["_TAG"] == servegraph.__version__
