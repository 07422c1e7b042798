"""Shares of the traffic, and what is refused before anything is sent."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph.deploy_version.discovery import load
from servegraph.deploy_version.faults import NoCapacity, Overtaken, Unavailable, fault_of
from servegraph.deploy_version.machine_check import check_machine, price_per_hour
from servegraph.deploy_version.plan import DeployRequest, ModelFacts, ServiceOptions
from servegraph.deploy_version.prebuilt import check_image
from servegraph.deploy_version.step import make_request
from servegraph.deploy_version.traffic import rising, shifted
from servegraph.errors import DeployRefused, InputError
from servegraph.serve.state import ServingConfig

TODAY = date(2026, 11, 25)
MODEL = ModelFacts("model", "sha256:0", 1_000_000, 3, {}, 0)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=6), st.integers(0, 100))
def test_shares_stay_whole_and_sum_to_100(weights: list[int], percent: int) -> None:
    total = sum(weights)
    shares = {str(number): 0 for number in range(len(weights))}
    if total:
        for number, weight in enumerate(weights):
            shares = shifted(shares, str(number), 100 * weight // total) if number else {**shares, "0": 100}
    after = shifted(shares, "new", percent)
    assert sum(after.values()) in (100, 0)
    assert all(share >= 0 for share in after.values())
    if sum(shares.values()):
        assert after["new"] == percent


def test_shares_keep_their_proportions_and_zeros_stay() -> None:
    assert shifted({"1": 90, "2": 10, "3": 0}, "4", 50) == {"1": 45, "2": 5, "3": 0, "4": 50}
    assert shifted({"1": 100}, "2", 0) == {"1": 100, "2": 0}
    assert shifted({"1": 33, "2": 33, "3": 34}, "4", 1) == {"1": 33, "2": 33, "3": 33, "4": 1}


def test_the_steps_on_the_way() -> None:
    assert rising(0, 100, (10, 50, 100)) == (10, 50, 100)
    assert rising(10, 100, (10, 50)) == (50, 100)
    assert rising(100, 100, (10,)) == ()
    assert rising(0, 0, ()) == ()
    assert rising(40, 20, ()) == (20,)


@pytest.mark.parametrize("steps", [(50, 10), (0, 10), (10, 10), (10, 101)])
def test_steps_that_do_not_rise(steps: tuple[int, ...]) -> None:
    with pytest.raises(InputError) as caught:
        DeployRequest("model", "census", traffic_steps=steps)
    assert caught.value.code == "BAD_TRAFFIC_STEPS"


# One row a machine that is refused: platform, machine, code.
REFUSED = [
    ("vertex", ServingConfig("n1-standard-3"), "MACHINE_NOT_OFFERED"),
    ("vertex", ServingConfig("mls1-c1-m2"), "MACHINE_NOT_OFFERED"),
    ("vertex", ServingConfig("n1-standard-4", "NVIDIA_TESLA_T4", 3), "BAD_ACCELERATOR_COUNT"),
    ("vertex", ServingConfig("n1-standard-32", "T4", 1), "BAD_ACCELERATOR_COUNT"),
    ("vertex", ServingConfig("n1-standard-4", "NVIDIA_TESLA_P100", 1), "ACCELERATOR_ENDED"),
    ("vertex", ServingConfig("n1-standard-4", "NVIDIA_L4", 1), "ACCELERATOR_NOT_ON_MACHINE"),
    ("vertex", ServingConfig("g2-standard-4", "NVIDIA_TESLA_T4", 1), "ACCELERATOR_NOT_ON_MACHINE"),
    ("ai-platform", ServingConfig("mls1-c1-m2", "NVIDIA_TESLA_T4", 1), "ACCELERATOR_NOT_ON_MACHINE"),
    ("ai-platform", ServingConfig("e2-standard-4"), "MACHINE_NOT_OFFERED"),
    ("kserve", ServingConfig("n1-standard-4"), "MACHINE_NOT_OFFERED"),
    ("vertex", ServingConfig("g2-standard-4", "NVIDIA_L4", 8), "BAD_ACCELERATOR_COUNT"),
    ("vertex", ServingConfig("a2-highgpu-1g", "NVIDIA_A100_80GB", 1), "ACCELERATOR_NOT_ON_MACHINE"),
]


@pytest.mark.parametrize(("platform", "config", "code"), REFUSED)
def test_machines_that_a_platform_has_not(platform: str, config: ServingConfig, code: str) -> None:
    with pytest.raises(DeployRefused) as refused:
        check_machine(platform, config, MODEL, TODAY)
    assert refused.value.code == code


def test_machines_that_it_has() -> None:
    assert check_machine("vertex", ServingConfig("n1-standard-4", "NVIDIA_TESLA_V100", 2), MODEL, TODAY) == ()
    (ending,) = check_machine("vertex", ServingConfig("n1-standard-4", "T4", 1), MODEL, TODAY)
    assert ending.startswith("ACCELERATOR_ENDS_SOON")
    check_machine("vertex", ServingConfig("g2-standard-24", "NVIDIA_L4", 2), MODEL, TODAY)
    (unknown,) = check_machine("vertex", ServingConfig("g2-standard-4", "NVIDIA_L4", 1), MODEL, TODAY)
    assert unknown.startswith("MACHINE_NOT_CHECKED")
    assert check_machine("kserve", ServingConfig("container", "nvidia.com/gpu", 1), MODEL, TODAY) == ()


def test_too_large_and_too_many() -> None:
    large = ModelFacts("model", "sha256:0", 500_000_001, 3, {}, 0)
    with pytest.raises(DeployRefused) as refused:
        check_machine("ai-platform", ServingConfig("mls1-c1-m2"), large, TODAY)
    assert refused.value.code == "MODEL_TOO_LARGE"
    many = ModelFacts("model", "sha256:0", 1000, 1001, {}, 0)
    with pytest.raises(DeployRefused) as refused:
        check_machine("ai-platform", ServingConfig("n1-standard-2"), many, TODAY)
    assert refused.value.code == "TOO_MANY_FILES"


def test_the_price_is_of_all_replicas_and_never_a_guess() -> None:
    assert price_per_hour("vertex", ServingConfig("n1-standard-4", "T4", 2), 3) == pytest.approx(
        3 * (0.219 + 2 * 0.4025)
    )
    assert price_per_hour("vertex", ServingConfig("g2-standard-4", "NVIDIA_L4", 1), 1) is None
    assert price_per_hour("kserve", ServingConfig("container"), 1) is None


def test_what_faults_are() -> None:
    quota = "The following quota metrics exceed quota limits: aiplatform.googleapis.com/custom_model_serving_cpus"
    rate = "Quota exceeded for quota metric 'Requests' and limit 'Requests per minute'"
    assert isinstance(fault_of(429, quota, "x"), NoCapacity)
    assert isinstance(fault_of(429, rate, "x"), Unavailable)
    for limit in ("RequestsPerMinutePerProjectPerRegion", "Requests per 100 seconds per user", "Queries per second"):
        said = f"Quota exceeded for quota metric 'Requests' and limit '{limit}'"
        assert isinstance(fault_of(429, said, "x"), Unavailable)
    assert isinstance(fault_of(503, "ZONE_RESOURCE_POOL_EXHAUSTED", "x"), NoCapacity)
    assert isinstance(fault_of(503, "", "x"), Unavailable)
    assert isinstance(fault_of(409, "etag", "x"), Overtaken)
    assert fault_of(403, "Permission denied", "x").code == "NO_ACCESS"


def test_bodies_are_held_to_the_published_schema() -> None:
    document, parent = load("ml", "v1"), {"parent": "projects/p/models/m"}
    body = {"name": "v1", "runtimeVersion": "2.11", "pythonVersion": "3.7"}
    create = "ml.projects.models.versions.create"
    assert document.problems(create, parent, body) == []
    for wrong, says in (
        ({"runtimVersion": "2.11"}, "unknown field"),
        ({"acceleratorConfig": {"type": "NVIDIA_TESLA_T4", "count": 1}}, "expected a string"),
        ({"acceleratorConfig": {"type": "T4", "count": "1"}}, "is not one of"),
        ({"state": "READY"}, "output only"),
        ({"labels": ["a"]}, "expected an object"),
        ({"autoScaling": {"minNodes": "1"}}, "expected int32"),
    ):
        (problem,) = document.problems(create, parent, {**body, **wrong})
        assert says in problem
    assert document.problems(create, {"parent": "elsewhere"}, body)
    assert document.problems(create, {}, {"name": "v1", "runtimeVersion": "2.11"}) == [
        "parent: missing",
        "body.pythonVersion: is required",
    ]


def test_prebuilt_images_end_and_age() -> None:
    prebuilt = "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest"
    check_image(prebuilt, "2.15.1", TODAY)
    check_image(prebuilt.replace("cpu", "gpu"), "2.15.1", TODAY, on_gpu=True)
    with pytest.raises(DeployRefused, match="uses no GPU") as idle:
        check_image(prebuilt, "2.15.1", TODAY, on_gpu=True)
    assert idle.value.code == "IMAGE_WITHOUT_GPU" and "tf2-gpu.2-15" in idle.value.fix
    check_image("us-docker.pkg.dev/my/own/image:1", "2.21.0", date(2030, 1, 1))
    for image, version, today, code in (
        (prebuilt, "2.21.0", TODAY, "IMAGE_TOO_OLD"),
        (prebuilt, "2.15.0", date(2027, 1, 14), "IMAGE_ENDED"),
        (prebuilt.replace("15", "11"), "2.11.0", TODAY, "IMAGE_ENDED"),
        (prebuilt.replace("tf2-cpu.2-15", "sklearn-cpu.1-0"), "2.11.0", TODAY, "UNKNOWN_IMAGE"),
    ):
        with pytest.raises(DeployRefused) as refused:
            check_image(image, version, today)
        assert refused.value.code == code


def test_a_step_gives_plain_values_and_the_labels_of_its_run() -> None:
    made = make_request(
        model_uri="model",
        name="census",
        machine=("n1-standard-2", "", 0),
        fallbacks=[{"machine_type": "n1-standard-4", "accelerator_type": None, "accelerator_count": 0.0}],
        serving={"min_replicas": 2.0, "labels": {"team": "fraud"}},
        rollout=(100, [10.0, 50.0], 3),
        run_labels='{"vertex-ai-pipelines-run-billing-id": "7", "owner": "me"}',
    )
    assert made.traffic_steps == (10, 50)
    assert made.fallbacks == (ServingConfig("n1-standard-4"),)
    assert made.service == ServiceOptions(min_replicas=2, labels=(("owner", "me"), ("team", "fraud")))
    with pytest.raises(InputError) as caught:
        make_request(model_uri="model", name="census", machine=("", "", 0), serving={"replicas": 2})
    assert caught.value.code == "BAD_SERVICE_OPTION"
