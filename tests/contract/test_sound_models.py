"""What an inspection finds at a deploy: damage is refused by every target before anything is sent or copied."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.bad_models.damage import flip_bit
from tests.emulators.gcs import FakeGcs
from tests.emulators.remote_places import FAKES, Emulated
from tests.tiny_models import write_tiny_model

from servegraph.deploy_version.deploy import deploy, examine, plan_deploy
from servegraph.deploy_version.model_gate import MAX_NAMED, check_batch, warnings_of
from servegraph.deploy_version.plan import DeployRequest, ServiceOptions
from servegraph.deploy_version.targets import Target
from servegraph.deploy_version.targets.local import LocalTarget
from servegraph.errors import DeployRefused, ModelError
from servegraph.inspect_graph.inspect import inspect
from servegraph.routine.manifest import Routine
from servegraph.savedmodel.layout import ROUTINE_FILE, content_digest
from servegraph.storage import open_dir

GOLDEN = [{"signature_name": "serving_default", "inputs": {"x": [1.0, 2.5]}, "outputs": {"y": [2.0, 5.0]}}]
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


def test_variables_that_are_not_what_was_written_are_refused_before_they_are_sent(sut: Sut, tmp_path: Path) -> None:
    damaged = shutil.copytree(REAL / "module", tmp_path / "damaged")
    flip_bit("variables/variables.data-00000-of-00001", 5)(damaged)
    (found,) = (item for item in inspect(str(damaged), verify=True).findings if item.code == "CRC_MISMATCH")
    with pytest.raises(ModelError) as caught:
        deploy(DeployRequest(str(damaged), "census"), sut.target)
    assert (caught.value.code, caught.value.message, caught.value.fix) == (found.code, found.message, found.fix)
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


def test_code_of_ones_own_may_give_a_graph_the_batch_that_it_takes(tmp_path: Path) -> None:
    model = str(write_tiny_model(tmp_path / "model", inputs={"x": ("float32", [8, 3])}))
    prebuilt = "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest"
    for image in (None, prebuilt):
        with pytest.raises(DeployRefused) as caught:
            check_batch(examine(DeployRequest(model, "census", service=ServiceOptions(image=image))))
        assert caught.value.code == "FIXED_BATCH"
    behind = examine(DeployRequest(model, "census", service=ServiceOptions(image="mine.example/padding:1")))
    check_batch(behind)
    assert any(said.startswith("FIXED_BATCH: ") for said in warnings_of(behind))


STRAYS = {"checkpoint": 10, "events.out.tfevents.1.host": 2000, "train/model.ckpt-5.index": 30, ".DS_Store": 0}
KNOWN = ("assets.extra/tf_serving_warmup_requests", "keras_metadata.pb", "explanation_metadata.json")


def write_strays(model: Path) -> Path:
    for path, size_bytes in STRAYS.items():
        (model / path).parent.mkdir(exist_ok=True)
        (model / path).write_bytes(bytes(size_bytes))
    return model


def test_stray_files_are_named_and_stay_behind(sut: Sut, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model", golden=GOLDEN)
    for path in KNOWN:
        (model / path).parent.mkdir(exist_ok=True)
        (model / path).write_bytes(b"")
    whole = {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}
    digest = content_digest(open_dir(str(model)))
    request = DeployRequest(str(write_strays(model)), "census")
    plan = plan_deploy(request, sut.target)
    assert plan.refusal() is None
    assert (plan.model.digest, plan.model.file_count) == (digest, len(whole))
    (said,) = (warning for warning in plan.warnings if warning.startswith("STRAY_FILES: "))
    assert "left behind: .DS_Store (0 B), checkpoint (10 B), events.out.tfevents.1.host (2.00 kB), train/" in said
    assert "30 B) (2.04 kB in all)" in said
    done = deploy(request, sut.target)
    assert done.outcome == "created"
    found = {name for name in sut.files() if any(name.endswith(f"/{path}") for path in (*whole, *STRAYS))}
    assert {path for path in (*whole, *STRAYS) if any(name.endswith(f"/{path}") for name in found)} == whole
    shutil.rmtree(model / "train")
    assert deploy(request, sut.target).outcome == "unchanged"


def test_of_many_stray_files_the_first_are_named(tmp_path: Path) -> None:
    model = write_strays(write_tiny_model(tmp_path / "model"))
    for number in range(MAX_NAMED):
        (model / f"notes-{number}.txt").write_text("")
    (said,) = warnings_of(examine(DeployRequest(str(model), "census")))
    assert " and 4 more (2.04 kB in all). " in said


def test_what_a_routine_or_an_image_of_ones_own_may_read_goes_along(tmp_path: Path) -> None:
    model = str(write_strays(write_tiny_model(tmp_path / "model")))
    for known in (
        "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest",
        "europe-west4-docker.pkg.dev/p/servegraph/python-serving:0.1.0",
        "localhost:5000/python-serving@sha256:1234",
        "tensorflow/serving",
    ):
        assert not examine(DeployRequest(model, "census", service=ServiceOptions(image=known))).for_own_code
    facts = examine(DeployRequest(model, "census", service=ServiceOptions(image="gcr.io/p/mine")))
    assert facts.digest == content_digest(open_dir(model))
    (said,) = warnings_of(facts)
    assert said.startswith("STRAY_FILES: of a training by their names, and deployed with what the image may read: ")
    assert "checkpoint" in said and ".DS_Store" not in said
    manifest = Path(model) / ROUTINE_FILE
    manifest.parent.mkdir(parents=True)
    manifest.write_text(Routine("module:Doubling", "predictor", False, "r.whl", "r.tar.gz").to_json())
    assert examine(DeployRequest(model, "census")).for_own_code


def test_of_a_whole_model_nothing_is_said(sut: Sut) -> None:
    for name in ("keras_dense", "v1_adam", "v1_partitioned"):
        plan = plan_deploy(DeployRequest(str(REAL / name), "census"), sut.target)
        assert not [said for said in plan.warnings if said.startswith(("STRAY_FILES", "FIXED_BATCH"))]
        assert plan.refusal() is None or plan.refusal().code != "FIXED_BATCH"  # type: ignore[union-attr]
