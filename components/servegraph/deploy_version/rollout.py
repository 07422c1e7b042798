"""What is still to do, from what is wanted and what is there: the same for every service, values in and values out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from servegraph.deploy_version.plan import OutcomeName, Step
from servegraph.deploy_version.remote import STABLE, Goal, Seen, SeenVersion, Service, Shift
from servegraph.deploy_version.traffic import rising, shifted
from servegraph.errors import DeployRefused, InputError
from servegraph.machines.sizes import format_size


def forward(service: Service, goal: Goal, seen: Seen) -> tuple[Step, ...]:
    """Return all steps that are missing until the goal's version has its traffic and no version is too many."""
    if seen.busy:
        return (wait(seen),)
    steps: list[Step] = []
    mine = seen.of(goal.identity)
    if mine is None and not seen.staged.is_complete:
        here = seen.staged.files
        left = goal.model.size_bytes - sum(here.values())
        steps.append(
            Step("upload", f"{goal.model.file_count - len(here)} files, {format_size(left)} to {goal.artifact_uri}")
        )
    preparing = service.prepare(goal, seen)
    steps += preparing
    ahead = service.foresee(replace(seen, versions=_with_mine(service, goal, seen)), preparing)
    name = (mine or ahead.versions[0]).version
    for shift in shifts_to(service, ahead, _named(ahead, name), goal):
        shifting = service.shift(ahead, shift)
        steps += shifting
        ahead = service.foresee(after(ahead, shift), shifting)
    new = _named(ahead, name)
    labelling = service.label(ahead, new, missing_labels(goal, new))
    steps += labelling
    ahead = service.foresee(replace(ahead, versions=_relabelled(ahead, new, goal)), labelling)
    for version in surplus(ahead, goal.request.keep_versions, name):
        retiring = service.retire(ahead, version)
        steps += retiring
        ahead = service.foresee(ahead, retiring)
    return tuple(steps)


def wait(seen: Seen) -> Step:
    """Return the step that waits for what the service is doing already."""
    detail = f"for what runs already: {', '.join(seen.busy)}"
    return Step("wait", detail, params={"operations": ",".join(seen.busy)})


def cancel(operations: Sequence[str]) -> Step:
    """Return the step that asks for operations to be given up."""
    return Step("cancel", ", ".join(operations), params={"operations": ",".join(operations)})


def shifts_to(service: Service, seen: Seen, mine: SeenVersion, goal: Goal) -> tuple[Shift, ...]:
    """Return the shifts of traffic until `mine` has the share that is asked for.

    Raises:
        InputError: there is no other version to take what `mine` is not to have (code `NOTHING_ELSE_TO_SERVE`).
    """
    final = goal.request.traffic_percent
    others = {name: share for name, share in seen.shares.items() if name != mine.version}
    has_to_be_all = 0 < final < 100 or (final == 0 and (mine.share or not service.can_be_empty))
    if not others and has_to_be_all:
        raise InputError(
            f"No other version of {seen.name!r} has traffic to share with {mine.version}.",
            code="NOTHING_ELSE_TO_SERVE",
            fix="Deploy it with --traffic 100, or 0 for none until later; `servegraph undeploy --all` stops it.",
        )
    live = seen.live
    previous = seen.previous if live is None or live.version == mine.version or mine.share else live.version
    steps = goal.request.traffic_steps if others else ()
    return tuple(
        Shift(shifted(seen.shares, mine.version, share), previous if share else seen.previous)
        for share in rising(mine.share, final, steps)
    )


def back(service: Service, goal: Goal, seen: Seen, before: Seen) -> tuple[Step, ...]:
    """Return the steps that leave nothing of the goal's version: its traffic goes back first, with the way back."""
    mine = seen.of(goal.identity)
    if mine is not None and mine.share:
        fits = mine.version not in before.shares and _can_be_again(before, seen)
        shares = {**before.shares, mine.version: 0} if fits else shifted(seen.shares, mine.version, 0)
        if any(shares.values()) or service.can_be_empty:
            steps = service.shift(seen, replace(_way(before), shares=shares) if fits else Shift(shares, None))
            if steps:
                return steps
    return service.withdraw(goal, seen)


def restore(service: Service, seen: Seen, before: Seen) -> tuple[Step, ...]:
    """Return the step that shares the traffic out as it was; none where that cannot be any more."""
    if seen.shares == before.shares or not _can_be_again(before, seen):
        return ()
    return service.shift(seen, _way(before))


def _can_be_again(before: Seen, seen: Seen) -> bool:
    return bool(before.shares) and before.shares.keys() <= {version.version for version in seen.serving}


def _way(seen: Seen) -> Shift:
    return Shift(seen.shares, seen.previous, seen.rolled_back_from)


def rollback_shift(seen: Seen, to: str | None) -> Shift | None:
    """Return the shift that gives `to`, or the version before the live one, all traffic; None where it has it.

    Raises:
        InputError: there is no such version that runs (code `NOT_DEPLOYED`).
        DeployRefused: there is none to go back to (code `NO_PREVIOUS_VERSION`).
    """
    live, name = seen.live, to or seen.previous
    if name is None:
        raise DeployRefused(
            f"{seen.name} has no version before {live.version if live else 'none'} to roll back to.",
            code="NO_PREVIOUS_VERSION",
            fix="Deploy the model that should be live.",
        )
    target = next((version for version in seen.serving if version.version == name), None)
    if target is None:
        running = ", ".join(version.version for version in seen.serving) or "none"
        raise InputError(
            f"{seen.name} has no version {name} that runs.",
            code="NOT_DEPLOYED",
            fix=f"Deploy its model again, or name one that runs: {running}.",
        )
    if seen.shares == {name: 100}:
        return None
    shares = {**dict.fromkeys(seen.shares, 0), name: 100}
    # A canary that has not become the live one is what is rolled back; else it is the live one.
    other = [v for v in seen.versions if v.share and v.version != name]
    from_version = max(other, key=lambda version: version.share, default=live)
    before = from_version.version if from_version else None
    newer = [version.version for version in seen.versions]  # newest first
    is_back = before is not None and newer.index(before) < newer.index(name)
    return Shift(shares, before, before if is_back else None)


def outcome_of(goal: Goal, seen: Seen, steps: tuple[Step, ...]) -> OutcomeName:
    """Return what a deploy comes to that starts from `seen`."""
    mine = seen.of(goal.identity)
    if seen.busy or (mine is not None and mine.state in ("starting", "stored")):
        return "adopted"
    if not steps:
        return "unchanged"
    return "created" if not seen.versions else "updated"


def after(seen: Seen, shift: Shift) -> Seen:
    """Return what is there once a shift is done."""
    versions = tuple(replace(version, share=shift.shares.get(version.version, 0)) for version in seen.versions)
    return replace(seen, versions=versions, previous=shift.previous, rolled_back_from=shift.rolled_back_from)


def missing_labels(goal: Goal, mine: SeenVersion) -> tuple[str, ...]:
    """Return the labels that are still to point to the version."""
    stable = (STABLE,) if goal.request.traffic_percent == 100 else ()
    return tuple(label for label in (*stable, *goal.request.labels) if label not in mine.labels)


def surplus(seen: Seen, keep: int, just_made: str) -> tuple[SeenVersion, ...]:
    """Return our running versions beyond the `keep` most needed: with traffic, previous, labelled, newest.

    What was just made is never among them, even if it has no traffic.
    """
    ours = [version for version in seen.serving if not version.is_foreign]
    order = {version.version: -place for place, version in enumerate(seen.versions)}

    def weight(version: SeenVersion) -> tuple[bool, bool, bool, bool, int]:
        name = version.version
        return (version.share > 0, name == just_made, name == seen.previous, bool(version.labels), order[name])

    ranked = sorted(ours, key=weight, reverse=True)
    return tuple(v for v in reversed(ranked[keep:]) if not v.share and v.version != just_made)


def taken_from_others(seen: Seen, after: Mapping[str, int]) -> tuple[str, ...]:
    """Return a warning for each foreign version that has less of the traffic in `after` than it has now."""
    return tuple(
        f"FOREIGN_TRAFFIC: version {version.version} ({version.resource}), which servegraph did not make, goes from "
        f"{version.share} to {after.get(version.version, 0)} % of the traffic; it runs on."
        for version in seen.foreign
        if after.get(version.version, 0) < version.share
    )


def check_removable(seen: Seen, name: str | None) -> None:
    """Refuse to stop what has traffic, as version `name`, and what somebody else runs, as that or (None) as any.

    Raises:
        DeployRefused: it is foreign (code `FOREIGN_DEPLOYMENTS`), or has traffic (code `HAS_TRAFFIC`).
    """
    asked = [version for version in seen.foreign if name in (None, version.version) and version.state != "stored"]
    if asked:
        keep = "or keep it: roll back to it, and undeploy servegraph's versions one by one"
        raise foreign_runs(seen, asked, f"Remove it with the service's own tools first, {keep}.")
    found = seen.version(name)
    if found is not None and found.share:
        raise DeployRefused(
            f"Version {name} of {seen.name} has {found.share} % of the traffic.",
            code="HAS_TRAFFIC",
            fix="Roll back first (`servegraph rollback`), or remove the whole model with --all.",
        )


def foreign_runs(seen: Seen, foreign: Sequence[SeenVersion], fix: str) -> DeployRefused:
    """Return the refusal of what would remove `foreign` versions that run."""
    return DeployRefused(
        f"Under the name {seen.name} there is what servegraph did not make: {', '.join(v.resource for v in foreign)}.",
        code="FOREIGN_DEPLOYMENTS",
        fix=fix,
    )


def _named(seen: Seen, name: str) -> SeenVersion:
    version = seen.version(name)
    assert version is not None
    return version


def _with_mine(service: Service, goal: Goal, seen: Seen) -> tuple[SeenVersion, ...]:
    """The versions with the goal's own as it will run, first where it is new."""
    mine = seen.of(goal.identity)
    if mine is not None:
        return tuple(replace(v, state="ready") if v is mine else v for v in seen.versions)
    name, resource = service.next_version(seen)
    new = SeenVersion(name, resource, goal.identity, goal.model.digest, state="ready", config=goal.config)
    return (new, *seen.versions)


def _relabelled(seen: Seen, new: SeenVersion, goal: Goal) -> tuple[SeenVersion, ...]:
    moved = set(missing_labels(goal, new))
    return tuple(
        replace(version, labels=tuple(label for label in version.labels if label not in moved))
        if version.version != new.version
        else replace(version, labels=(*version.labels, *moved))
        for version in seen.versions
    )
