"""One deploy to a service under way: forward, with the machines to fall back on, and back where it must not serve."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from servegraph.deploy_version import rollout
from servegraph.deploy_version.converge import converge
from servegraph.deploy_version.faults import (
    CannotServe,
    NoCapacity,
    NotFound,
    Overtaken,
    Rejected,
    Unavailable,
    Unreadable,
)
from servegraph.deploy_version.golden import difference, read_golden
from servegraph.deploy_version.machine_check import check_machine
from servegraph.deploy_version.plan import Step
from servegraph.deploy_version.remote import Answer, Goal, Seen
from servegraph.deploy_version.served_graph import served
from servegraph.deploy_version.site import Site
from servegraph.deploy_version.targets import OnStep
from servegraph.errors import ServegraphError, StorageError
from servegraph.machines.sizes import format_size
from servegraph.savedmodel.golden_file import GoldenRequest
from servegraph.savedmodel.layout import content_digest
from servegraph.serve.state import ServingConfig
from servegraph.storage.gcs_lease import Lease
from servegraph.storage.gcs_upload import remove_below, upload

ASK_UNTIL = 40  # requests that a version with a share of the traffic gets until one reaches it


class Deploying:
    """One deploy under way: forward, with the machines to fall back on, and back where it must not serve."""

    def __init__(self, site: Site, goal: Goal, lease: Lease, on_step: OnStep) -> None:
        """Bring `goal` about."""
        self._site, self._goal, self._lease, self._on_step = site, goal, lease, on_step
        self._service, self._staging = site.service, site.staging
        self._before: Seen | None = None  # what there is to go back to
        self._ran_before: set[str] = set()
        self._is_interrupted, self._cancelled = False, set[str]()
        self._fallbacks = list(goal.request.fallbacks)
        self.notes: list[str] = []

    def run(self) -> tuple[Seen, Goal]:
        """Go forward to the goal. Raises what stopped it, once nothing is left of the version.

        What may pass leaves everything as it is: the next run goes on from there. So does the loss of the lock.
        """
        while True:
            try:
                seen = self._converge(lambda seen: rollout.forward(self._service, self._goal, self._noted(seen)))
            except NoCapacity as fault:
                if not self._fallbacks:
                    self._withdraw(fault)
                    raise
                self._fall_back(fault)
            except (Unavailable, Overtaken, StorageError):
                raise
            except KeyboardInterrupt:
                self._on_step("interrupted: cancelling what was begun")
                self._service.cancel()
                self._is_interrupted = True
                self._withdraw(None)
                raise
            except Exception as fault:
                if getattr(fault, "code", None) != "LOCK_LOST":
                    self._withdraw(fault)
                raise
            else:
                return seen, self._goal

    def removed(self, seen: Seen) -> tuple[str, ...]:
        """Return which versions ran when it began and do not run now."""
        left = {version.version for version in seen.serving}
        return tuple(sorted(self._ran_before - left, key=lambda version: (len(version), version)))

    def _noted(self, seen: Seen) -> Seen:
        self._before = self._before or seen
        self._ran_before |= {version.version for version in seen.serving}
        return seen

    def _fall_back(self, fault: NoCapacity) -> None:
        config = self._fallbacks.pop(0)
        was, now = self._goal.config, config
        note = f"FELL_BACK: {_machine(was)} is not to be had, {_machine(now)} is taken instead: {fault.message}"
        self._on_step(note)
        self.notes.append(note)
        self.notes += check_machine(self._service.target, config, self._goal.model, self._site.today())
        self._goal = replace(self._goal, config=config)

    def _withdraw(self, fault: Exception | None) -> None:
        """Leave nothing of the version, and say so. What cannot be removed is said too, and does not hide `fault`.

        A version that had traffic before keeps it, unless it is at fault itself: it is no half-made one.
        """
        before = self._before
        if before is None:  # nothing was begun
            return
        was, uri = before.of(self._goal.identity), self._goal.artifact_uri
        stays = was is not None and was.share > 0 and not isinstance(fault, (CannotServe, NoCapacity))
        now: Seen | None = None
        missing: tuple[Step, ...] = ()

        def back(seen: Seen) -> tuple[Step, ...]:
            nonlocal now, missing
            now, missing = seen, self._back(seen, before, stays=stays)
            return missing

        try:
            seen = self._converge(back)
            if not any(version.artifact_uri == uri for version in seen.versions):
                remove_below(uri, self._staging.client)
        except ServegraphError as exc:
            undone = "; ".join(f"{step.action} {step.detail}" for step in missing) or f"remove {uri}"
            why = "" if isinstance(fault, ServegraphError) and exc.message == fault.message else f"{exc.message} "
            left = f"Something of it is left: {why}Still to do: {undone}."
            share, how = _with_traffic(now, self._goal)
            self._on_step(f"{left} {share} {how}")
            if isinstance(fault, ServegraphError):
                fault.message, fault.fix = f"{fault.message} {left} {share}".rstrip(), f"{fault.fix} {how}".rstrip()
        else:
            if isinstance(fault, ServegraphError) and not stays and seen.shares == before.shares:
                fault.fix = f"The traffic is where it was and the version is gone. {fault.fix}"

    def _back(self, seen: Seen, before: Seen, *, stays: bool) -> tuple[Step, ...]:
        if seen.busy:
            # The lock is held: this run began it, or one that died. The answer that named it may have been missed.
            unasked = [name for name in seen.busy if name not in self._cancelled]
            return (rollout.cancel(unasked) if self._is_interrupted and unasked else rollout.wait(seen),)
        if stays:
            return rollout.restore(self._service, seen, before)
        return rollout.back(self._service, self._goal, seen, before)

    def _converge(self, missing: Callable[[Seen], tuple[Step, ...]]) -> Seen:
        def look() -> Seen:
            return self._site.look(self._goal.request.name, self._goal)

        patience = self._site.waits.patience()
        patience.relax()  # the plan was made by what the service answered: it can be reached
        return converge(look, missing, self._perform, patience, self._on_step)

    def _perform(self, step: Step, seen: Seen) -> None:
        self._lease.check()
        if step.action == "upload":
            self._upload()
        elif step.action == "cancel":
            operations = step.params["operations"].split(",")
            self._service.cancel(*operations)
            self._cancelled.update(operations)
        elif step.action == "probe":
            self._probe(seen)
            self._goal = replace(self._goal, probed=True)
        else:
            self._service.perform(step)
            if step.action == "shift":
                self._check_in_place()

    def _upload(self) -> None:
        model, told = self._goal.model, _Told(self._goal.model.size_bytes, self._on_step)
        source = served(self._site.open(model.uri), model.tags, strays=model.for_own_code)

        def check() -> None:
            if content_digest(source) != model.digest:
                raise CannotServe(
                    f"The files of {model.uri!r} changed while they were uploaded.",
                    code="MODEL_CHANGED",
                    fix="Deploy again once nothing writes to the model.",
                )
            self._lease.check()

        place = self._service.layout(self._goal.artifact_uri)
        upload(source, place, self._staging.client, told.count, check, self._staging.sizes)

    def _golden(self) -> tuple[GoldenRequest, ...]:
        model = self._goal.model
        if not model.golden_requests:
            return ()
        try:
            directory = served(self._site.open(model.uri), model.tags, strays=model.for_own_code)
            return read_golden(directory, model.routine)
        except StorageError as exc:  # nothing tells whether it answers rightly
            raise CannotServe(f"Its golden requests are gone: {exc.message}", code=exc.code, fix=exc.fix) from exc

    def _probe(self, seen: Seen) -> None:
        unasked = 0
        for request in self._golden():
            answer = self._ask(seen, request, "without traffic")
            if answer is None:
                unasked += 1
            else:
                self._compare(request, answer.outputs, "without traffic")
        if unasked:
            count = self._goal.model.golden_requests
            self.notes.append(f"NOT_ASKED: {unasked} of {count} golden requests do not fit the service's predictions.")

    def _check_in_place(self) -> None:
        """Ask through the shared traffic until the new version answers, and compare that answer."""
        seen = self._site.look(self._goal.request.name, self._goal)
        mine = seen.of(self._goal.identity)
        if mine is None or not mine.share:
            return
        when = f"with {mine.share} % of the traffic"
        for request in self._golden()[:1]:
            for _ in range(ASK_UNTIL):
                answer = self._ask(seen, request, when)
                if answer is None:
                    break
                if answer.version in (None, mine.version):
                    self._compare(request, answer.outputs, when)
                    break

    def _ask(self, seen: Seen, request: GoldenRequest, when: str) -> Answer | None:
        def ask() -> Answer | None:
            try:
                return self._service.ask(self._goal, seen, request)
            except NoCapacity as fault:  # a prediction takes no machine: it is a limit on requests, which passes
                raise Unavailable(fault.message, fix=fault.fix) from fault
            except Unreadable as fault:  # a container's answers do not get better
                raise Rejected(fault.message, fix=fault.fix) from fault

        try:
            return self._site.waits.patience().again(ask)
        except (NotFound, Overtaken, Rejected, Unavailable) as fault:
            raise self._failed(request, when, f"got no answer: {fault.message}") from fault

    def _compare(self, request: GoldenRequest, outputs: Mapping[str, Any], when: str) -> None:
        tolerance = self._goal.request.tolerance
        found = difference(request, outputs, tolerance)
        if found:
            what = f"{found} (tolerance abs {tolerance.abs:g}, rel {tolerance.rel:g})."
            raise self._failed(request, when, what)

    def _failed(self, request: GoldenRequest, when: str, what: str) -> CannotServe:
        name = self._goal.request.name
        return CannotServe(
            f"Golden request {request.line} ({request.asked}) of {name}, asked {when}, {what}",
            code="PROBE_FAILED",
            fix="Mend the model and deploy again.",
        )


def _with_traffic(seen: Seen | None, goal: Goal) -> tuple[str, str]:
    """Return what to say of traffic that the version may keep: how it was shared out last, and what ends that."""
    if seen is None:
        return "", "`servegraph versions` tells how the traffic is shared out now."
    mine = seen.of(goal.identity)
    if mine is None or not mine.share:
        return "", ""
    shares = ", ".join(f"version {version} had {share} %" for version, share in seen.shares.items())
    go_back = f", or `servegraph rollback` to give version {seen.way_back} all traffic" if seen.way_back else ""
    return f"When last looked at, {shares} of the traffic.", f"Then deploy again to go on from there{go_back}."


class _Told:
    """Says how far an upload is, in steps that somebody reads."""

    def __init__(self, total: int, on_step: OnStep) -> None:
        self._total, self._done, self._told, self._on_step = total, 0, 0, on_step
        self._lock = threading.Lock()  # parts are sent by many threads

    def count(self, size_bytes: int) -> None:
        with self._lock:
            self._done += size_bytes
            percent = 100 * self._done // max(1, self._total)
            if percent >= self._told + 5 or (self._done >= self._total and self._told < 100):
                self._told = min(100, percent)
                self._on_step(f"uploaded {format_size(self._done)} of {format_size(self._total)} ({self._told} %)")


def _machine(config: ServingConfig) -> str:
    gpus = f" with {config.accelerator_count} x {config.accelerator_type}" if config.accelerator_type else ""
    return f"{config.machine_type}{gpus}"
