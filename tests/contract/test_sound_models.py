"""What an inspection finds at a deploy: damage is refused by every target before anything is sent or copied."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.emulators.gcs import FakeGcs
from tests.emulators.remote_places import FAKES, Emulated
from tests.tiny_models import write_tiny_model

from servegraph.deploy_version.deploy import deploy, examine, plan_deploy
from servegraph.deploy_version.model_gate import MAX_NAMED, check_batch, warnings_of
from servegraph.deploy_version.plan import DeployRequest
from servegraph.deploy_version.targets import Target
from servegraph.deploy_version.targets.local import LocalTarget
from servegraph.errors import DeployRefused, ModelError
from servegraph.inspect_graph.inspect import inspect
from servegraph.routine.manifest import Routine
from servegraph.savedmodel.layout import content_digest
from servegraph.storage import open_dir

REAL = Path(__file__).parents[1] / "real_models"


class Sut(NamedTuple):
    """A target, and where what it deploys can be seen."""

    kind: str
    target: Target
    root: Path
    storage: FakeGcs

    def files(self) -> list[str]:
        """Return what was copied or uploaded so far, but for locks."""
        local = [str(path) for path in self.root.rglob("*") if path.is_file()]
        return [name for name in (*local, *self.storage.names("bucket")) if "lock" not in name]


@pytest.fixture(params=["local", *FAKES])
def sut(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sut]:
    kind, root = request.param, tmp_path / "root"
    with ExitStack() as stack:
        storage = stack.enter_context(FakeGcs())
        storage.make_bucket("bucket")
        target: Target
        if kind == "local":
            target = LocalTarget(root, probe=lambda *_: None)
        else:
            service = stack.enter_context(FAKES[kind]())
            target = Emulated(kind, service.url, storage.url).open(stack)
        yield Sut(kind, target, root, storage)


@pytest.mark.parametrize(
    ("model", "lost", "code"),
    [
        ("v1_adam", "assets/vocabulary.txt", "MISSING_ASSET"),
        ("module", "variables/variables.data-00000-of-00001", "MISSING_SHARD"),
        ("module", "variables/variables.index", "NO_VARIABLES"),
    ],
)
def test_a_model_that_lacks_a_file_is_refused_as_inspect_does(
    sut: Sut, tmp_path: Path, model: str, lost: str, code: str
) -> None:
    damaged = shutil.copytree(REAL / model, tmp_path / "damaged")
    (damaged / lost).unlink()
    (found,) = (item for item in inspect(str(damaged)).findings if item.code == code)
    with pytest.raises(ModelError) as caught:
        deploy(DeployRequest(str(damaged), "census"), sut.target)
    assert (caught.value.code, caught.value.message, caught.value.fix) == (code, found.message, found.fix)
    assert sut.files() == []


def test_a_fixed_batch_is_refused_by_services_and_said_on_this_machine(sut: Sut, tmp_path: Path) -> None:
    fixed = {"inputs": {"x": ("float32", [8, 3])}, "outputs": {"y": ("float32", [8])}}
    model = str(write_tiny_model(tmp_path / "model", **fixed))  # type: ignore[arg-type]
    (found,) = (item for item in inspect(model).findings if item.code == "FIXED_BATCH")
    request = DeployRequest(model, "census")
    if sut.kind == "local":
        done = deploy(request, sut.target)
        assert done.outcome == "created"
        assert [said for said in done.warnings if said.startswith(f"FIXED_BATCH: {found.message}")]
        assert deploy(request, sut.target).warnings == ()  # it is said of what is deployed
    else:
        refusal = plan_deploy(request, sut.target).refusal()
        assert refusal is not None
        assert (refusal.code, refusal.message, refusal.fix) == (found.code, found.message, found.fix)
        with pytest.raises(DeployRefused, match="first dimension must be None"):
            deploy(request, sut.target)
        assert sut.files() == []


def test_a_routine_may_give_a_graph_the_batch_that_it_takes(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model", inputs={"x": ("float32", [8, 3])})
    facts = examine(DeployRequest(str(model), "census"))
    with pytest.raises(DeployRefused) as caught:
        check_batch(facts)
    assert caught.value.code == "FIXED_BATCH"
    behind = replace(facts, routine=Routine("module:Doubling", "predictor", False, "", ""))
    check_batch(behind)
    assert any(said.startswith("FIXED_BATCH: ") for said in warnings_of(behind))


def test_stray_files_are_named_with_their_bytes(sut: Sut, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    strays = {"checkpoint": 10, "events.out.tfevents.1.host": 2000, "train/model.ckpt-5.index": 30}
    for path, size_bytes in strays.items():
        (model / path).parent.mkdir(exist_ok=True)
        (model / path).write_bytes(bytes(size_bytes))
    plan = plan_deploy(DeployRequest(str(model), "census"), sut.target)
    assert plan.refusal() is None
    assert plan.model.digest == content_digest(open_dir(str(model)))
    (said,) = (warning for warning in plan.warnings if warning.startswith("STRAY_FILES: "))
    assert (
        "(2.04 kB): checkpoint (10 B), events.out.tfevents.1.host (2.00 kB), train/model.ckpt-5.index (30 B). " in said
    )
    for number in range(MAX_NAMED):
        (model / f"notes-{number}.txt").write_text("")
    (said,) = (
        warning
        for warning in plan_deploy(DeployRequest(str(model), "census"), sut.target).warnings
        if warning.startswith("STRAY_FILES: ")
    )
    assert " and 3 more. " in said


def test_of_a_whole_model_nothing_is_said(sut: Sut) -> None:
    for name in ("keras_dense", "v1_adam", "v1_partitioned"):
        plan = plan_deploy(DeployRequest(str(REAL / name), "census"), sut.target)
        assert not [said for said in plan.warnings if said.startswith(("STRAY_FILES", "FIXED_BATCH"))]
        assert plan.refusal() is None or plan.refusal().code != "FIXED_BATCH"  # type: ignore[union-attr]
