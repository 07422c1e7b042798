"""A target that is a service: `Target` over a `Service`, a staging place on Cloud Storage and a lease."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

from servegraph.deploy_version import rollout
from servegraph.deploy_version.converge import converge
from servegraph.deploy_version.deploying import Deploying
from servegraph.deploy_version.machine_check import check_machine, price_per_hour
from servegraph.deploy_version.model_gate import check_batch, warnings_of
from servegraph.deploy_version.plan import (
    DeployedVersion,
    DeployRequest,
    ModelFacts,
    ModelVersions,
    Outcome,
    OutcomeName,
    Plan,
    Step,
)
from servegraph.deploy_version.probe import NO_GOLDEN_WARNING
from servegraph.deploy_version.remote import Goal, Seen, SeenVersion
from servegraph.deploy_version.routine_gate import breaks_clients, check_trust
from servegraph.deploy_version.site import LOCK_FILE, Site
from servegraph.deploy_version.targets import OnStep, say_nothing
from servegraph.errors import DeployRefused, InputError, ModelError, StorageError
from servegraph.routine.manifest import read_routine
from servegraph.serve.signatures import read_serving_graph
from servegraph.serve.state import ServingConfig, check_model_name
from servegraph.storage.gcs_lease import Lease, leased
from servegraph.storage.gcs_upload import remove_below, staged_files


class RemoteTarget:
    """Versions on `service`. See `Target` for the contract."""

    def __init__(self, site: Site) -> None:
        """Deploy to the service of `site`."""
        self._site, self._service, self._staging = site, site.service, site.staging

    def plan(self, request: DeployRequest, model: ModelFacts) -> Plan:
        """Return what `apply` would do now."""
        return self._plan(request, model)[0]

    def apply(self, plan: Plan, on_step: OnStep = say_nothing) -> Outcome:
        """Do what the plan says, or what it has become since."""
        request, model = plan.request, plan.model
        with self._changing(request.name, on_step) as lease:
            plan, goal = self._plan(request, model)
            refusal = plan.refusal()
            if refusal is not None:
                raise refusal
            change = Deploying(self._site, goal, lease, on_step)
            seen, goal = change.run()
            new = seen.of(goal.identity)
            assert new is not None
            warnings = (*plan.warnings, *change.notes)
            return self._outcome(
                plan.outcome,
                seen,
                new.config.machine_type or goal.config.machine_type,
                removed=change.removed(seen),
                version=new,
                warnings=warnings,
            )

    def versions(self, name: str) -> ModelVersions:
        """Return the versions of the model that run, newest first."""
        seen = self._deployed(name)
        live = seen.live
        return ModelVersions(
            target=self._service.target,
            name=name,
            resource=seen.resource,
            live=live.version if live else None,
            previous=seen.way_back,
            versions=tuple(
                DeployedVersion(
                    version=version.version,
                    resource=version.resource,
                    digest=version.digest,
                    created=version.created,
                    size_bytes=version.size_bytes,
                    config=version.config,
                    traffic_percent=version.share,
                    labels=version.labels,
                    files=self._service.layout(version.artifact_uri) if version.artifact_uri else "",
                )
                for version in seen.serving
            ),
        )

    def rollback(self, name: str, to: str | None = None) -> Outcome:
        """Give all traffic to version `to`, or to the previous one."""
        self._deployed(name)
        with self._changing(name, say_nothing) as lease:
            seen = self._deployed(name)
            live = seen.live
            if to is None and seen.rolled_back_from is not None and live is not None:
                done = f"{name} is already rolled back from version {seen.rolled_back_from} to {live.version}."
                return self._outcome("unchanged", seen, None, warnings=(f"{done} Name another version with --to.",))
            shift = rollout.rollback_shift(seen, to)
            if shift is None:
                return self._outcome("unchanged", seen, None)
            (winner,) = (version for version, share in shift.shares.items() if share)

            def missing(now: Seen) -> tuple[Step, ...]:
                steps = () if now.shares == {winner: 100} else self._service.shift(now, shift)
                new = now.version(winner)
                if new is None or new.is_foreign or "stable" in new.labels:
                    return steps
                return (*steps, *self._service.label(now, new, ("stable",)))

            taken = rollout.taken_from_others(seen, shift.shares)
            seen = self._converge(name, None, missing, lease, say_nothing)
            return self._outcome("rolled_back", seen, None, warnings=taken)

    def undeploy(self, name: str, version: str | None = None) -> Outcome:
        """Stop a version that has no traffic, or remove the model with all its versions."""
        check_model_name(name)
        before = self._site.look(name, None)
        if not before.versions and not before.resource:
            return self._outcome("unchanged", before, None)
        with self._changing(name, say_nothing) as lease:

            def missing(now: Seen) -> tuple[Step, ...]:
                if now.busy:
                    return (rollout.wait(now),)
                rollout.check_removable(now, version)
                if version is None:
                    return self._removal(now)
                left = now.version(version)
                return self._service.retire(now, left) if left is not None and left.state != "stored" else ()

            after = self._converge(name, None, missing, lease, say_nothing)
            gone = _gone(before, after)
            is_less = gone or before.resource != after.resource
            kept = (after.resource, *(v.resource for v in after.foreign)) if version is None and after.resource else ()
            warnings = tuple(f"KEPT: {resource}, which servegraph did not make." for resource in kept)
            return self._outcome("removed" if is_less else "unchanged", after, None, removed=gone, warnings=warnings)

    def _removal(self, seen: Seen) -> tuple[Step, ...]:
        """The steps that remove the name; its files go before the last one, or a run cut off there would leave them."""
        steps = self._service.dismantle(seen)
        place = self._staging.of(seen.name)
        if len(steps) == 1 and set(staged_files(place, self._staging.client)) - {LOCK_FILE}:
            return (Step("clear", f"the files below {place}"), *steps)
        return steps

    def _plan(self, request: DeployRequest, model: ModelFacts) -> tuple[Plan, Goal]:
        check_model_name(request.name)
        service, options = self._service, request.service
        if not service.splits_traffic and (request.traffic_percent not in (0, 100) or request.traffic_steps):
            raise InputError(
                f"On {service.target} a version has all of the traffic or none.",
                code="NO_TRAFFIC_SPLIT",
                fix="Give --traffic 0 or 100, and no --traffic-steps.",
            )
        digest = model.digest.replace(":", "-")
        goal = Goal(request, model, request.config, f"{self._staging.of(request.name)}/{digest}")
        warnings, refused = self._checked(request, model)
        seen = self._site.look(request.name, goal)
        steps = rollout.forward(service, goal, seen)
        for step in steps:
            service.validate(step)
        mine = seen.of(goal.identity)
        name, resource = (mine.version, mine.resource) if mine else service.next_version(seen)
        changes: tuple[str, ...] = ()
        if mine is None or not mine.share:
            changes, more = self._gate(seen, mine, model)
            warnings += more
        warnings += warnings_of(model) if steps and refused is None else []
        if not model.golden_requests and steps:
            warnings.append(NO_GOLDEN_WARNING)
        after = dict(seen.shares)
        if mine is None or mine.share != request.traffic_percent:
            base = (
                seen if mine else replace(seen, versions=(SeenVersion(name, resource, state="ready"), *seen.versions))
            )
            shifts = rollout.shifts_to(service, base, base.version(name) or base.versions[0], goal)
            after = {v: share for v, share in (shifts[-1].shares if shifts else after).items() if share}
            warnings += rollout.taken_from_others(seen, after)
        uploads = mine is None and not seen.staged.is_complete
        return Plan(
            target=service.target,
            request=request,
            model=model,
            outcome=rollout.outcome_of(goal, seen, steps),
            version=name,
            resource=resource,
            steps=steps,
            traffic_before=seen.shares,
            traffic_after=after,
            signature_changes=changes,
            warnings=tuple(warnings),
            machine_type=self._machine(request).machine_type,
            exists=_existing(seen),
            upload_bytes=model.size_bytes - sum(seen.staged.files.values()) if uploads else 0,
            price_per_hour=price_per_hour(service.target, self._machine(request), options.min_replicas),
            refused=refused if steps else None,
        ), goal

    def _checked(self, request: DeployRequest, model: ModelFacts) -> tuple[list[str], tuple[str, str, str] | None]:
        """What can be said without asking the service: warnings, and what speaks against the request."""
        try:
            check_trust(request, model)
            check_batch(model)
            warnings = check_machine(self._service.target, self._machine(request), model, self._site.today())
            warnings += self._service.check(request, model, self._site.today())
        except DeployRefused as exc:
            return [], (exc.code, exc.message, exc.fix)
        return list(warnings), None

    def _machine(self, request: DeployRequest) -> ServingConfig:
        asked = request.config
        return asked if asked.machine_type else replace(asked, machine_type=self._service.default_machine)

    def _gate(self, seen: Seen, mine: SeenVersion | None, model: ModelFacts) -> tuple[tuple[str, ...], list[str]]:
        """What would break clients of the version now live, and what to say where that cannot be known."""
        live = seen.live
        if live is None or live is mine:
            return (), []
        unknown = "NO_SIGNATURE_GATE: whether clients would break is not known, as"
        if not live.artifact_uri:
            return (), [f"{unknown} the service does not say where the files of the live version {live.version} are."]
        try:
            directory = self._site.open(self._service.layout(live.artifact_uri))
            served, routine = read_serving_graph(directory).signatures, read_routine(directory)
            return breaks_clients(served, routine, model.signatures, model.routine), []
        except (StorageError, ModelError) as exc:
            return (), [f"{unknown} the files of the live version {live.version} cannot be read: {exc.message}"]

    def _deployed(self, name: str) -> Seen:
        seen = self._site.look(check_model_name(name), None)
        if not seen.serving:
            raise InputError(
                f"No version of {name!r} is deployed to {self._service.target}.",
                code="NOT_DEPLOYED",
                fix="Deploy one, or check the name, project and region.",
            )
        return seen

    @contextlib.contextmanager
    def _changing(self, name: str, on_step: OnStep) -> Iterator[Lease]:
        with leased(
            self._staging.lock(name),
            self._staging.client,
            self._site.waits.lock_ttl_s,
            self._site.waits.lock_timeout_s,
            lambda holder: on_step(f"waiting for another change ({holder})"),
        ) as lease:
            yield lease

    def _converge(
        self,
        name: str,
        goal: Goal | None,
        missing: Callable[[Seen], tuple[Step, ...]],
        lease: Lease,
        on_step: OnStep,
    ) -> Seen:
        def perform(step: Step, seen: Seen) -> None:
            lease.check()
            if step.action == "clear":
                remove_below(self._staging.of(name), self._staging.client, keep=self._staging.lock(name))
            else:
                self._service.perform(step)

        patience = self._site.waits.patience()
        patience.relax()  # it has been looked at
        return converge(lambda: self._site.look(name, goal), missing, perform, patience, on_step)

    def _outcome(
        self,
        outcome: OutcomeName,
        seen: Seen,
        machine_type: str | None,
        *,
        removed: tuple[str, ...] = (),
        version: SeenVersion | None = None,
        warnings: tuple[str, ...] = (),
    ) -> Outcome:
        shown = version or seen.live
        return Outcome(
            outcome=outcome,
            target=self._service.target,
            name=seen.name,
            version=shown.version if shown else None,
            resource=shown.resource if shown else seen.resource,
            machine_type=machine_type or (shown.config.machine_type if shown else None),
            previous=seen.way_back,
            traffic=seen.shares,
            labels={label: version.version for version in seen.versions for label in version.labels},
            removed=removed,
            warnings=warnings,
            links={kind: str(link) for kind, link in seen.own.get("links", {}).items()},
        )


def _gone(before: Seen, after: Seen) -> tuple[str, ...]:
    """Return which versions ran and run no more, or are not even stored, oldest first."""
    run, left = {v.version for v in after.serving}, {v.version for v in after.versions if v.state == "stored"}
    return tuple(
        v.version
        for v in reversed(before.versions)
        if v.version not in run and (v.state != "stored" or v.version not in left)
    )


def _existing(seen: Seen) -> tuple[str, ...]:
    lines = [seen.resource] if seen.resource else []
    lines += [
        f"{v.resource}: {'not running' if v.state == 'stored' else f'{v.state}, {v.share} % of the traffic'}"
        f"{', not made by servegraph' if v.is_foreign else ''}"
        for v in seen.versions
    ]
    return tuple(lines)
