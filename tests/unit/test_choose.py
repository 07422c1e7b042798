"""The choice of a machine: its rules at their boundaries, and what holds for every choice."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph.errors import InputError, NoMachineFits, ServegraphError
from servegraph.machines import this_machine
from servegraph.machines.catalog import load
from servegraph.machines.choose import choose, tags_for
from servegraph.machines.decision import PLATFORMS, ChoiceRequest, Decision, ThisMachine

TODAY = date(2026, 11, 23)
MB, GB = 10**6, 10**9
SLOW = {"latency_goal_ms": 50.0, "measured_latency_ms": 50.1}


def decide(model_bytes: int, platform: Any, **wishes: Any) -> Decision:
    return choose(ChoiceRequest(**{"model_bytes": model_bytes, "platform": platform, "today": TODAY, **wishes}))


class TestAiPlatform:
    @pytest.mark.parametrize(
        ("model_bytes", "memory_bytes", "machine_type"),
        [
            (1, None, "mls1-c1-m2"),
            (500 * MB, None, "mls1-c1-m2"),
            (500 * MB + 1, None, "n1-highcpu-2"),
            (500 * MB, 2 * GB, "mls1-c1-m2"),
            (500 * MB, 2 * GB + 1, "n1-standard-2"),
            (524_288_000, None, "n1-highcpu-2"),  # 500 MiB is more than 500 MB
            (1500 * MB, None, "n1-highcpu-2"),  # 1.2 x 1.5 GB is just its 1.8 GB
            (1500 * MB + 1, None, "n1-standard-2"),
            (10 * GB, None, "n1-highmem-2"),
            (10 * GB, 13 * GB + 1, "n1-standard-4"),
            (1 * MB, 208 * GB, "n1-highmem-32"),
        ],
    )
    def test_boundaries(self, model_bytes: int, memory_bytes: int | None, machine_type: str) -> None:
        decision = decide(model_bytes, "ai-platform", memory_bytes=memory_bytes)
        assert decision.machine.machine_type == machine_type
        assert ("MLS1" in decision.rule) == machine_type.startswith("mls1")

    def test_what_weights_are_turned_back_into_counts_for_the_memory_alone(self) -> None:
        decision = decide(500 * MB, "ai-platform", growth_bytes=1500 * MB)
        assert decision.machine.machine_type == "n1-standard-2"
        assert decision.memory.size_bytes == 2400 * MB
        assert "turned back" in decision.memory.rule

    def test_above_10_gb_the_refusal_says_what_to_do_in_order(self) -> None:
        with pytest.raises(NoMachineFits, match="10000000001 bytes") as caught:
            decide(10 * GB + 1, "ai-platform")
        fix = caught.value.fix
        assert fix.index("Optimize") < fix.index("precision") < fix.index("quota")
        assert caught.value.exit_code == 1

    def test_a_granted_quota_lifts_the_limit_of_n1_and_not_of_mls1(self) -> None:
        decision = decide(12 * GB, "ai-platform", granted_model_bytes=20 * GB)
        assert decision.machine.machine_type == "n1-standard-4"
        assert any(warning.startswith("NEEDS_QUOTA") for warning in decision.warnings)
        assert decide(600 * MB, "ai-platform", granted_model_bytes=20 * GB).machine.machine_type == "n1-highcpu-2"
        with pytest.raises(NoMachineFits):
            decide(20 * GB + 1, "ai-platform", granted_model_bytes=20 * GB)

    def test_a_custom_prediction_routine_runs_on_mls1_only(self) -> None:
        routine = {"custom_prediction_routine": True}
        decision = decide(500 * MB, "ai-platform", **routine)
        assert decision.machine.machine_type == "mls1-c1-m2"
        reasons = {rejected.name: rejected.reason for rejected in decision.rejected}
        assert "only MLS1 does" in reasons["n1-standard-2"]
        with pytest.raises(NoMachineFits, match="up to 500 MB on MLS1"):
            decide(500 * MB + 1, "ai-platform", **routine)
        with pytest.raises(NoMachineFits, match="mls1-c1-m2, has 2 GB"):
            decide(500 * MB, "ai-platform", memory_bytes=2 * GB + 1, **routine)
        granted = decide(600 * MB, "ai-platform", granted_model_bytes=GB, **routine)
        assert granted.machine.machine_type == "mls1-c1-m2"
        with pytest.raises(NoMachineFits) as caught:
            decide(1, "ai-platform", accelerator="T4", **routine)
        assert caught.value.code == "ACCELERATOR_NOT_ON_MACHINE"

    @pytest.mark.parametrize(("today", "warned"), [(date(2025, 1, 30), False), (date(2025, 1, 31), True)])
    def test_the_plan_for_a_service_that_was_shut_down_carries_a_warning(self, today: date, warned: bool) -> None:
        warnings = decide(1, "ai-platform", today=today).warnings
        assert any(warning.startswith("PLATFORM_ENDED") for warning in warnings) == warned

    def test_no_price_is_made_up(self) -> None:
        assert decide(1, "ai-platform").to_json()["price_per_hour"] is None


class TestVertex:
    @pytest.mark.parametrize(
        ("model_bytes", "memory_bytes", "machine_type", "usd"),
        [
            (1, None, "n1-standard-2", 0.1095),
            (500 * MB, None, "n1-standard-2", 0.1095),
            (6250 * MB, None, "n1-standard-2", 0.1095),
            (6250 * MB + 1, None, "n1-highmem-2", 0.137),
            (10 * GB + 1, None, "n1-highmem-2", 0.137),
            (1, 13 * GB + 1, "n1-standard-4", 0.219),
            (1, 60 * GB + 1, "n1-highmem-16", 1.0884),
            (1, 208 * GB, "n1-highmem-32", 2.1768),
        ],
    )
    def test_the_cheapest_n1_that_holds_it(
        self, model_bytes: int, memory_bytes: int | None, machine_type: str, usd: float
    ) -> None:
        decision = decide(model_bytes, "vertex", memory_bytes=memory_bytes)
        assert decision.machine.machine_type == machine_type
        assert decision.machine.price
        assert (decision.machine.price.usd, decision.machine.price.region) == (usd, "us-central1")
        assert (decision.reserved_vcpus, decision.warnings) == (1, ())

    def test_too_much_memory(self) -> None:
        with pytest.raises(NoMachineFits, match=r"n1-highmem-32, has 208 GB"):
            decide(1, "vertex", memory_bytes=208 * GB + 1)

    def test_too_large_for_the_registry(self) -> None:
        with pytest.raises(NoMachineFits, match=r"takes up to 1\.00 TB"):
            decide(10**12 + 1, "vertex", memory_bytes=1)

    def test_a_custom_prediction_routine_is_a_container_there(self) -> None:
        assert decide(600 * MB, "vertex", custom_prediction_routine=True).machine.machine_type == "n1-standard-2"

    def test_every_other_machine_is_rejected_once_with_a_reason(self) -> None:
        decision = decide(6250 * MB + 1, "vertex")
        names = [rejected.name for rejected in decision.rejected]
        machines = [machine.name for machine in load().platforms["vertex"].machine_types]
        assert sorted([*names, decision.machine.machine_type]) == sorted(machines)
        reasons = {rejected.name: rejected.reason for rejected in decision.rejected}
        assert reasons["n1-standard-2"] == "has 7.5 GB of memory; the model needs 7.51 GB"
        assert reasons["n1-standard-4"] == "costs 0.219 USD an hour instead of 0.137"

    def test_fallbacks_are_the_next_cheapest(self) -> None:
        names = [machine.machine_type for machine in decide(1, "vertex").fallbacks]
        assert names == ["n1-highmem-2", "n1-highcpu-4", "n1-standard-4", "n1-highmem-4", "n1-highcpu-8"]


class TestGpus:
    @pytest.mark.parametrize("name", ["NVIDIA_TESLA_T4", "nvidia-tesla-t4", "T4", "t4", "tesla-t4", "T4:1"])
    def test_a_named_gpu_by_any_of_its_names(self, name: str) -> None:
        machine = decide(1, "vertex", accelerator=name).machine
        assert str(machine) == "n1-standard-2 with 1 x NVIDIA_TESLA_T4"
        assert machine.price
        assert machine.price.usd == pytest.approx(0.1095 + 0.4025)
        assert (machine.price.confidence, machine.price.date) == ("medium", "2022")

    def test_auto_takes_one_only_when_the_measured_latency_misses_the_goal(self) -> None:
        for known in ({}, {"latency_goal_ms": 50.0}, {"latency_goal_ms": 50.0, "measured_latency_ms": 50.0}):
            assert decide(1, "vertex", **known).machine.accelerator_type is None
        decision = decide(1, "vertex", **SLOW)
        assert str(decision.machine) == "n1-standard-2 with 1 x NVIDIA_TESLA_T4"
        assert "miss the goal of 50 ms" in decision.rule
        gpus = [machine.accelerator_type for machine in decision.fallbacks[:3]]
        assert gpus == ["NVIDIA_TESLA_P4", "NVIDIA_TESLA_V100", "NVIDIA_TESLA_T4"]

    def test_a_goal_without_a_measurement_is_said(self) -> None:
        (warning,) = decide(1, "vertex", latency_goal_ms=50.0).warnings
        assert warning.startswith("LATENCY_NOT_MEASURED")

    def test_none_means_none(self) -> None:
        decision = decide(1, "vertex", accelerator="none", **SLOW)
        assert decision.machine.accelerator_type is None
        assert decision.warnings[0].startswith("LATENCY_GOAL_MISSED")

    def test_auto_stays_on_a_cpu_where_no_gpu_holds_the_model(self) -> None:
        decision = decide(1, "vertex", memory_bytes=16 * GB + 1, **SLOW)
        assert decision.machine.accelerator_type is None
        assert decision.warnings[0].startswith("LATENCY_GOAL_MISSED")
        reasons = {rejected.name: rejected.reason for rejected in decision.rejected_accelerators}
        assert set(reasons) == {f"NVIDIA_TESLA_{name}" for name in ("T4", "P4", "V100", "P100", "K80")}
        assert "has 16.0 GB of memory" in reasons["NVIDIA_TESLA_T4"]

    def test_on_ai_platform_a_gpu_means_n1_however_small_the_model(self) -> None:
        decision = decide(1, "ai-platform", accelerator="T4")
        assert str(decision.machine) == "n1-highcpu-2 with 1 x NVIDIA_TESLA_T4"

    @pytest.mark.parametrize(
        ("accelerator", "memory_bytes", "machine"),
        [
            ("V100", 60 * GB, None),
            ("V100", 16 * GB, "n1-highmem-4 with 1 x NVIDIA_TESLA_V100"),
            ("T4:4", 1, "n1-standard-2 with 4 x NVIDIA_TESLA_T4"),
            ("V100:8", 1, "n1-standard-2 with 8 x NVIDIA_TESLA_V100"),
            ("P4", 8 * GB, "n1-highmem-2 with 1 x NVIDIA_TESLA_P4"),
            ("P4", 8 * GB + 1, None),
        ],
    )
    def test_each_gpu_holds_the_model_on_its_own(
        self, accelerator: str, memory_bytes: int, machine: str | None
    ) -> None:
        if machine:
            assert str(decide(1, "vertex", accelerator=accelerator, memory_bytes=memory_bytes).machine) == machine
            return
        with pytest.raises(NoMachineFits) as caught:
            decide(1, "vertex", accelerator=accelerator, memory_bytes=memory_bytes)
        assert caught.value.code == "ACCELERATOR_TOO_SMALL"

    @pytest.mark.parametrize(
        ("today", "outcome"),
        [
            (date(2026, 7, 31), "fine"),
            (date(2026, 8, 1), "warned"),
            (date(2027, 7, 31), "warned"),
            (date(2027, 8, 1), "refused"),
        ],
    )
    def test_end_of_support(self, today: date, outcome: str) -> None:
        if outcome == "refused":
            with pytest.raises(NoMachineFits, match="2027-08-01") as caught:
                decide(1, "vertex", accelerator="T4", today=today)
            assert caught.value.code == "ACCELERATOR_ENDED"
            assert decide(1, "vertex", today=today, **SLOW).machine.accelerator_type == "NVIDIA_TESLA_V100"
            return
        warnings = decide(1, "vertex", accelerator="T4", today=today).warnings
        assert any(w.startswith("ACCELERATOR_ENDS_SOON") for w in warnings) == (outcome == "warned")

    @pytest.mark.parametrize(
        ("platform", "accelerator", "code"),
        [
            ("vertex", "P100", "ACCELERATOR_ENDED"),
            ("ai-platform", "K80", "ACCELERATOR_ENDED"),
            ("vertex", "K80", "ACCELERATOR_NOT_OFFERED"),
            ("vertex", "L4", "ACCELERATOR_NOT_ON_N1"),
            ("ai-platform", "A100", "ACCELERATOR_NOT_ON_N1"),
            ("local", "T4", "ACCELERATOR_NOT_OFFERED"),
            ("kserve", "P100", "ACCELERATOR_ENDED"),
        ],
    )
    def test_gpus_that_cannot_be_had(self, platform: str, accelerator: str, code: str) -> None:
        with pytest.raises(NoMachineFits) as caught:
            decide(1, platform, accelerator=accelerator, this_machine=ThisMachine(2, 8 * GB))
        assert caught.value.code == code
        assert caught.value.fix

    def test_a_count_that_only_smaller_machines_allow(self) -> None:
        with pytest.raises(NoMachineFits, match="1 x NVIDIA_TESLA_V100") as caught:
            decide(1, "ai-platform", accelerator="V100:1", custom_prediction_routine=True)
        assert caught.value.code == "ACCELERATOR_NOT_ON_MACHINE"


class TestTags:
    CPU, GPU = ("serve",), ("serve", "gpu")

    @pytest.mark.parametrize(
        ("tag_sets", "on_cpu", "on_gpu"),
        [
            ((), CPU, CPU),
            ((CPU,), CPU, CPU),
            ((CPU, ("gpu", "serve")), CPU, GPU),
            ((GPU,), (), GPU),
            ((("serve", "tpu"), CPU), CPU, CPU),
            ((("train",),), (), ()),
            ((("serve", "v2"),), ("serve", "v2"), ("serve", "v2")),
        ],
    )
    def test_the_one_for_the_machine(self, tag_sets: Any, on_cpu: tuple[str, ...], on_gpu: tuple[str, ...]) -> None:
        assert tags_for(tag_sets, on_gpu=False) == on_cpu
        assert tags_for(tag_sets, on_gpu=True) == on_gpu

    def test_it_is_part_of_the_decision(self) -> None:
        both = (self.CPU, self.GPU)
        assert decide(1, "vertex", tag_sets=both).tags == self.CPU
        assert decide(1, "vertex", tag_sets=both, accelerator="T4").tags == self.GPU
        (warning,) = decide(1, "vertex", tag_sets=(self.GPU,)).warnings
        assert warning.startswith("NO_TAG_SET")


class TestKserve:
    def test_requests_and_limits(self) -> None:
        decision = decide(1, "kserve")
        assert decision.resources
        assert decision.resources.requests == {"cpu": "1", "memory": "2Gi"}
        assert decision.resources.limits == decision.resources.requests
        decision = decide(3 * GB, "kserve", accelerator="T4:2")
        assert decision.resources
        assert decision.resources.requests == {"cpu": "1", "memory": "3434Mi"}
        assert decision.resources.limits == {"cpu": "1", "memory": "3434Mi", "nvidia.com/gpu": "2"}
        assert (decision.machine.accelerator_type, decision.machine.accelerator_count) == (
            "NVIDIA_TESLA_T4",
            2,
        )

    def test_auto_leaves_the_type_to_the_cluster(self) -> None:
        decision = decide(3 * GB, "kserve", **SLOW)
        assert (decision.machine.accelerator_type, decision.machine.accelerator_count) == (
            "nvidia.com/gpu",
            1,
        )
        assert decision.warnings[0].startswith("ANY_GPU")

    def test_gpus_that_no_n1_has(self) -> None:
        assert decide(20 * GB, "kserve", accelerator="L4").machine.accelerator_type == "NVIDIA_L4"


class TestLocal:
    def test_this_machine_or_none(self) -> None:
        here = ThisMachine(vcpus=2, memory_bytes=8 * GB)
        decision = decide(1, "local", memory_bytes=8 * GB, this_machine=here, **SLOW)
        assert (decision.machine.machine_type, decision.machine.vcpus) == ("local", 2)
        assert decision.warnings[0].startswith("LATENCY_GOAL_MISSED")
        with pytest.raises(NoMachineFits, match=r"this machine has 8\.00 GB"):
            decide(1, "local", memory_bytes=8 * GB + 1, this_machine=here)

    def test_it_must_be_told(self) -> None:
        with pytest.raises(InputError) as caught:
            decide(1, "local")
        assert caught.value.code == "NO_THIS_MACHINE"

    def test_what_it_is(self) -> None:
        here = this_machine.read()
        assert here.vcpus >= 1
        assert 10**8 < here.memory_bytes < 10**15


@pytest.mark.parametrize(
    ("wishes", "code"),
    [
        ({"model_bytes": 0}, "BAD_NUMBER"),
        ({"model_bytes": -1}, "BAD_NUMBER"),
        ({"memory_bytes": -1}, "BAD_NUMBER"),
        ({"granted_model_bytes": -1}, "BAD_NUMBER"),
        ({"latency_goal_ms": float("nan")}, "BAD_NUMBER"),
        ({"measured_latency_ms": -1.0}, "BAD_NUMBER"),
        ({"platform": "sagemaker"}, "UNKNOWN_PLATFORM"),
        ({"accelerator": "TPU_V3"}, "UNKNOWN_ACCELERATOR"),
        ({"accelerator": ""}, "UNKNOWN_ACCELERATOR"),
        ({"accelerator": "T4:3"}, "BAD_ACCELERATOR_COUNT"),
        ({"accelerator": "T4:8"}, "BAD_ACCELERATOR_COUNT"),
        ({"accelerator": "T4:x"}, "BAD_ACCELERATOR_COUNT"),
        ({"accelerator": "T4:-1"}, "BAD_ACCELERATOR_COUNT"),
        ({"accelerator": "L4:99"}, "BAD_ACCELERATOR_COUNT"),
    ],
)
def test_bad_input(wishes: dict[str, Any], code: str) -> None:
    with pytest.raises(InputError) as caught:
        decide(**{"model_bytes": 1, "platform": "vertex", **wishes})
    assert caught.value.code == code
    assert caught.value.fix


def test_the_estimate_of_memory_is_tensorflow_servings() -> None:
    assert [decide(n, "vertex").memory.size_bytes for n in (1, 5, 10, 11)] == [2, 6, 12, 14]
    assert "TensorFlow Serving" in decide(1, "vertex").memory.rule
    assert decide(1, "vertex", memory_bytes=7).memory.rule == "measured"


def test_the_record_has_the_keys_that_others_rely_on() -> None:
    record = decide(1, "vertex", **SLOW).to_json()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    promised = (
        "platform machine_type accelerator_type accelerator_count model_bytes memory_bytes rule rejected "
        "price_per_hour warnings"
    )
    assert set(promised.split()) <= set(record)
    assert set(record["rejected"][0]) == {"machine_type", "reason"}


REQUESTS = st.builds(
    ChoiceRequest,
    model_bytes=st.integers(1, 2 * 10**12),
    today=st.dates(date(2024, 1, 1), date(2029, 1, 1)),
    platform=st.sampled_from(PLATFORMS),
    accelerator=st.sampled_from(["auto", "none", "T4", "P4:2", "V100", "V100:8", "P100", "K80", "L4"]),
    memory_bytes=st.none() | st.integers(1, 300 * GB),
    latency_goal_ms=st.none() | st.just(10.0),
    measured_latency_ms=st.none() | st.sampled_from([5.0, 20.0]),
    custom_prediction_routine=st.booleans(),
    granted_model_bytes=st.none() | st.integers(1, 100 * GB),
    this_machine=st.just(ThisMachine(4, 16 * GB)),
)


@given(REQUESTS)
def test_what_holds_for_every_choice(request: ChoiceRequest) -> None:
    catalogue = load()
    try:
        decision = choose(request)
    except ServegraphError as error:
        assert isinstance(error, NoMachineFits)
        return
    machine, gpu = decision.machine, catalogue.accelerators.get(decision.machine.accelerator_type or "")
    assert machine.memory_bytes >= decision.memory.size_bytes
    assert (machine.accelerator_type is None) == (machine.accelerator_count == 0)
    assert request.accelerator != "none" or machine.accelerator_type is None
    if gpu:
        assert not gpu.has_ended(request.today)
        assert gpu.memory_bytes >= decision.memory.size_bytes
    if request.platform not in ("vertex", "ai-platform"):
        return
    platform = catalogue.platforms[request.platform]
    families = {row.name: platform.families[row.family] for row in platform.machine_types}
    for each in (machine, *decision.fallbacks):
        assert each.memory_bytes >= decision.memory.size_bytes
        most = max(families[each.machine_type].max_model_bytes, request.granted_model_bytes or 0)
        assert request.model_bytes <= most
        if each.accelerator_type:
            counts = catalogue.accelerators[each.accelerator_type].counts(int(each.vcpus))
            assert families[each.machine_type].gpus
            assert each.accelerator_count in counts
    names = [rejected.name for rejected in decision.rejected]
    assert sorted([*names, machine.machine_type]) == sorted(families)
    if machine.price:
        assert all(machine.price.usd <= each.price.usd for each in decision.fallbacks if each.price)
    fits_mls1 = request.platform == "ai-platform" and not gpu
    fits_mls1 &= request.model_bytes <= 500 * MB and decision.memory.size_bytes <= 2 * GB
    assert machine.machine_type.startswith("mls1") == fits_mls1 or request.custom_prediction_routine


@given(st.integers(1, 173 * GB), st.integers(1, 10 * GB))
def test_a_larger_model_never_gets_a_cheaper_machine(model_bytes: int, more: int) -> None:
    smaller, larger = decide(model_bytes, "vertex"), decide(min(model_bytes + more, 173 * GB), "vertex")
    assert smaller.machine.price
    assert larger.machine.price
    assert smaller.machine.price.usd <= larger.machine.price.usd
