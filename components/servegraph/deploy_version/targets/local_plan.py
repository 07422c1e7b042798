"""The plan of a deploy to this machine, from what is wanted and what is there: values in, values out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from servegraph.deploy_version.model_gate import warnings_of
from servegraph.deploy_version.plan import DeployRequest, ModelFacts, OutcomeName, Plan, Step
from servegraph.deploy_version.probe import NO_GOLDEN_WARNING
from servegraph.deploy_version.routine_gate import breaks_clients, check_trust
from servegraph.deploy_version.targets.local_state import STABLE, surplus, switched
from servegraph.errors import DeployRefused, InputError
from servegraph.machines.sizes import format_size
from servegraph.routine.manifest import Routine
from servegraph.serve.routes import is_label
from servegraph.serve.state import ModelState, VersionRecord

Action = Literal["clear", "copy", "adopt", "probe", "publish", "switch", "label", "remove"]


@dataclass(frozen=True)
class Seen:
    """What is below `ROOT/NAME`.

    `managed` is False where versions lie there without a state file, in TF Serving's plain layout; `state` is
    then what it would say. `adoptable` maps directories that may become a version to the digest of their
    files: those that a deploy before this one announced or began to remove, and those of a plain layout. `lost` are
    versions of the state whose files are gone or damaged, as with a disk.
    """

    state: ModelState = field(default_factory=ModelState)
    managed: bool = True
    directories: tuple[int, ...] = ()
    leftovers: tuple[str, ...] = ()
    adoptable: Mapping[int, str] = field(default_factory=dict)
    live_routine: Routine | None = None
    lost: tuple[int, ...] = ()

    @property
    def usable(self) -> ModelState:
        """The state without the versions that are lost: what a deploy can build on."""
        return self.state.without(self.lost) if self.lost else self.state

    @property
    def next_version(self) -> int:
        """A number that was never used and is not there."""
        return max([self.state.next_version, *(number + 1 for number in self.directories)])

    @property
    def foreign(self) -> tuple[int, ...]:
        """Version directories that somebody else put there: neither served nor touched."""
        ours = {*self.state.versions, *self.state.unfinished}
        return tuple(number for number in self.directories if number not in ours)


class _Decision(NamedTuple):
    outcome: OutcomeName
    version: int
    files: Literal["copy", "adopt"] | None  # how they come to be staged; None: they are live already
    switch: bool


def make_plan(request: DeployRequest, model: ModelFacts, seen: Seen, model_dir: Path) -> Plan:
    """Return what a deploy of `model` does to what is `seen` below `model_dir`.

    Raises:
        InputError: the request asks for what this target does not do.
    """
    check_request(request)
    decision = _decide(request, model, seen)
    state = seen.usable if decision.switch else seen.state
    after = state.without(surplus(state, request.keep_versions))
    changes: tuple[str, ...] = ()
    if decision.switch:
        record = make_record(request, model, created="")
        share = request.traffic_percent
        after = switched(state, decision.version, record, request.labels, request.keep_versions, share)
    if decision.files and seen.state.live is not None:
        live = seen.state.versions[seen.state.live].signatures
        changes = breaks_clients(live, seen.live_routine, model.signatures, model.routine)
    return Plan(
        target="local",
        request=request,
        model=model,
        outcome=decision.outcome,
        version=str(decision.version),
        resource=str(model_dir / str(decision.version)),
        steps=_steps(decision, model, seen, after, model_dir),
        traffic_before={str(number): share for number, share in seen.state.traffic.items()},
        traffic_after={str(number): share for number, share in after.traffic.items()},
        signature_changes=changes,
        warnings=_warnings(decision, model, seen),
        refused=_refused(request, model) if decision.files else None,
    )


def check_request(request: DeployRequest) -> None:
    """Refuse what this target does not do.

    Raises:
        InputError: traffic in steps (code `NO_TRAFFIC_STEPS`), or a label that no route has (`BAD_LABEL`).
    """
    if request.traffic_steps:
        raise InputError(
            "On this machine a version gets its share of the traffic at once.",
            code="NO_TRAFFIC_STEPS",
            fix="Give --traffic, and no --traffic-steps.",
        )
    for label in request.labels:
        if not is_label(label):
            raise InputError(
                f"{label!r} cannot be a label: it is a part of the path that the version is asked at.",
                code="BAD_LABEL",
                fix="Use at least one character, no '/' and no ':'.",
            )


def make_record(request: DeployRequest, model: ModelFacts, created: str) -> VersionRecord:
    """Return what the state says about the version that `request` makes of `model`."""
    return VersionRecord(
        digest=model.digest,
        created=created,
        size_bytes=model.size_bytes,
        config=request.config,
        signatures=model.signatures,
    )


def to_clear(seen: Seen, keep: int | None) -> tuple[int, ...]:
    """Return the directories of unfinished changes but for version `keep`: nobody uses them."""
    return tuple(n for n in seen.state.unfinished if n != keep and n in seen.directories)


def _refused(request: DeployRequest, model: ModelFacts) -> tuple[str, str, str] | None:
    try:
        check_trust(request, model)
    except DeployRefused as exc:
        return exc.code, exc.message, exc.fix
    return None


def _decide(request: DeployRequest, model: ModelFacts, seen: Seen) -> _Decision:
    state = seen.usable
    same = [
        number
        for number, record in state.versions.items()
        if seen.managed and (record.digest, record.config) == (model.digest, request.config)
    ]
    share = request.traffic_percent
    version = next((number for number in same if state.traffic.get(number)), max(same, default=seen.next_version))
    others = [number for number in state.traffic if number != version]
    if not others and (0 < share < 100 or (share == 0 and state.traffic)):
        raise InputError(
            f"No other version of {request.name!r} has traffic to share with {version}.",
            code="NOTHING_ELSE_TO_SERVE",
            fix="Deploy it with --traffic 100, or 0 for none until later; `servegraph undeploy --all` stops it.",
        )
    if same:
        has = state.traffic.get(version, 0)
        labelled = all(state.labels.get(label) == version for label in request.labels)
        if has == share and labelled:
            return _Decision("unchanged", version, None, switch=False)
        # What had no traffic is asked again: it was rolled back, or held back.
        return _Decision("updated", version, None if has or not share else "adopt", switch=True)
    adoptable = [number for number, digest in seen.adoptable.items() if digest == model.digest]
    if adoptable:
        return _Decision("adopted", max(adoptable), "adopt", switch=True)
    return _Decision("updated" if seen.state.versions else "created", seen.next_version, "copy", switch=True)


def _steps(decision: _Decision, model: ModelFacts, seen: Seen, after: ModelState, model_dir: Path) -> tuple[Step, ...]:
    version = decision.version
    steps = [_step("clear", f"{model_dir / name}") for name in seen.leftovers]
    steps += [_step("clear", f"{model_dir / str(number)}") for number in to_clear(seen, version)]
    if decision.files == "copy":
        steps.append(_step("copy", f"{model.file_count} files, {format_size(model.size_bytes)} from {model.uri}"))
    if decision.files == "adopt":
        steps.append(_step("adopt", f"the files in {model_dir / str(version)}"))
    if decision.files:
        what = f"{model.golden_requests} golden requests" if model.golden_requests else "load only"
        steps.append(_step("probe", what))
    if decision.files == "copy":
        steps.append(_step("publish", f"{model_dir / str(version)}"))
    if decision.files or seen.state.traffic != after.traffic:
        share = after.traffic.get(version, 0)
        whole = f"version {seen.state.live or 'none'} -> {version}"
        steps.append(_step("switch", whole if share == 100 else f"version {version}: {share} % of the traffic"))
    moved = [label for label, of in after.labels.items() if label != STABLE and seen.state.labels.get(label) != of]
    if moved:
        steps.append(_step("label", f"version {version}: {', '.join(sorted(moved))}"))
    gone = sorted(seen.state.versions.keys() - after.versions.keys())
    return (*steps, *(_step("remove", f"version {number}") for number in gone))


def _step(action: Action, detail: str) -> Step:
    return Step(action, detail)


def _warnings(decision: _Decision, model: ModelFacts, seen: Seen) -> tuple[str, ...]:
    warnings = warnings_of(model) if decision.files else []
    if decision.files and not model.golden_requests:
        warnings.append(NO_GOLDEN_WARNING)
    if seen.lost:
        numbers = ", ".join(map(str, seen.lost))
        then = "this deploy forgets them" if decision.switch else "undeploy them"
        warnings.append(
            f"The files of versions are gone or damaged, so that they can be neither served nor rolled back to: "
            f"{numbers}; {then}."
        )
    if seen.managed and seen.foreign:
        numbers = ", ".join(map(str, seen.foreign))
        warnings.append(f"There are version directories that no deploy made, which are not served: {numbers}.")
    return tuple(warnings)
