"""cloudbuild.yaml is what Cloud Build takes, by its published schema and the rules that it states in words."""

from __future__ import annotations

import copy
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from servegraph.deploy_version.discovery import load
from servegraph_pipelines.images import read_lock

ROOT = Path(__file__).parents[2]
BUILD: dict[str, Any] = yaml.safe_load((ROOT / "cloudbuild.yaml").read_text())
IMAGES = ("slim", "tensorflow", "estimator", "serving")
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
    for image in IMAGES:
        assert (ROOT / f"images/{image}/Dockerfile").is_file()
        assert f"python-{image}" in " ".join(BUILD["images"])


DOCKER = """#!/bin/sh
echo "docker $*" >> "$CALLS"
[ "$1" != inspect ] || echo "${4%:*}@sha256:$(printf '%064d' 1)"
"""


def calls(step: str, folder: Path, **settings: str) -> list[str]:
    """Run a step as a build that no trigger started, which has no commit; return what it asked of docker."""
    docker = folder / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    script = next(row["script"] for row in BUILD["steps"] if row["id"] == step)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(folder / "calls"), "PROJECT_ID": "p"}
    subprocess.run(
        ["bash", "-c", script], env={**environment, **BUILD["substitutions"], **settings}, cwd=folder, check=True
    )
    return (folder / "calls").read_text().splitlines()


@pytest.mark.parametrize("commit", [{}, {"COMMIT_SHA": ""}])
def test_images_are_built_without_a_commit_and_on_one_base_bound_to_its_digest(tmp_path, commit):
    builds = [call for call in calls("build", tmp_path, **commit) if call.startswith("docker build")]
    assert len(builds) == 3 * len(IMAGES)
    assert {re.search(r"REVISION=(\S*)", call)[1] for call in builds} == {"unknown"}
    assert {re.search(r" BASE=(\S*)", call)[1] for call in builds} == {f"python@sha256:{1:064d}"}


def test_what_the_next_build_takes_is_the_stage_that_installs(tmp_path):
    cached = [call for call in calls("build", tmp_path) if re.search(r" -t \S+:cache ", call)]
    assert len(cached) == len(IMAGES)
    assert all("--target build " in call and "BUILDKIT_INLINE_CACHE=1" in call for call in cached)
    for image in IMAGES:
        assert re.search(r"^FROM .* AS build$", (ROOT / f"images/{image}/Dockerfile").read_text(), re.MULTILINE)


def test_the_lock_that_is_pushed_is_one_that_is_read(tmp_path):
    calls("push", tmp_path)
    assert sorted(read_lock(tmp_path / "images.json")) == sorted(f"python-{image}" for image in IMAGES)


def test_the_version_is_the_packages():
    import servegraph

    assert BUILD["substitutions"]["_TAG"] == servegraph.__version__
