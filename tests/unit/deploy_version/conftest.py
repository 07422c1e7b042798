"""A root of the local target, and a target whose probe finds nothing wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.deploy_version.local_deploys import (
    say_yes,
)

from servegraph.deploy_version.targets.local import LocalTarget


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def target(root: Path) -> LocalTarget:
    return LocalTarget(root, probe=say_yes, lock_timeout_s=0.3)
