"""Deploys to the local target as its tests make them, also one that is killed on the way."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.tiny_models import write_tiny_model

from servegraph.deploy_version.plan import DeployRequest, Outcome
from servegraph.savedmodel.layout import content_digest
from servegraph.serve.state import SPARE_FILE, STATE_FILE, read_state
from servegraph.serve.versions import wanted_model
from servegraph.storage import open_dir


def say_yes(*_: object) -> None:
    """A probe that finds nothing wrong."""


def request(model: Path, **options: object) -> DeployRequest:
    return DeployRequest(str(model), "census", **options)


def write_model(tmp_path: Path, content: str) -> Path:
    return write_tiny_model(tmp_path / f"model-{content}", content)


def files_below(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir())


DEPLOY_AND_DIE = """
import os, signal, sys
from pathlib import Path
from servegraph.deploy_version.deploy import deploy
from servegraph.deploy_version.plan import DeployRequest
from servegraph.deploy_version.targets import Place, open_target
from servegraph.deploy_version.targets.local import LocalTarget

model, root, keep, fatal = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
steps = []

def on_step(step):
    print(step, flush=True)
    if len(steps) == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    steps.append(step)

def probe(*_):
    on_step("probing")

deploy(DeployRequest(model, "census", keep_versions=keep), LocalTarget(Path(root), probe=probe), on_step)
"""


def deploy_and_die(model: Path, root: Path, keep: int, fatal_step: int) -> list[str]:
    """Deploy in a process that is killed at step `fatal_step` (-1: never) and return the steps it got to."""
    command = [sys.executable, "-c", DEPLOY_AND_DIE, str(model), str(root), str(keep), str(fatal_step)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == (0 if fatal_step < 0 else -signal.SIGKILL), done.stderr
    return done.stdout.splitlines()


def served_digest(root: Path) -> str | None:
    """Return the digest of the files that a server would load for unversioned requests."""
    if not (root / "census").exists():
        return None
    wanted = wanted_model(root / "census")
    live = max(wanted.traffic, default=None)
    return None if live is None else content_digest(open_dir(wanted.versions[live].directory))


def assert_converged(root: Path, model: Path, done: Outcome, keep: int) -> None:
    state = read_state(root / "census")
    assert state is not None
    assert state.live == int(done.version or 0)
    assert state.versions[state.live].digest == content_digest(open_dir(model)) == served_digest(root)
    assert [record.digest for record in state.versions.values()].count(state.versions[state.live].digest) == 1
    assert state.unfinished == ()
    assert len(state.versions) <= keep
    expected = {".lock", SPARE_FILE, STATE_FILE, *map(str, state.versions)}
    assert {entry.name for entry in (root / "census").iterdir()} == expected
    for number, record in state.versions.items():
        assert content_digest(open_dir(root / "census" / str(number))) == record.digest
