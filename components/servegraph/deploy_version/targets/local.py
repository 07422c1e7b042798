"""The local target: TF Serving's layout below a root directory, followed by `servegraph serve ROOT`.

A version is staged below `ROOT/NAME/.staging-…/NAME/<integer>/`, which is itself a root that a server can
serve, is probed there, published by one rename, and made live by one small file (`servegraph.serve.state`).
After a crash at any point the old version is live; the next deploy clears or adopts what was left.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from servegraph.deploy_version.golden import read_golden
from servegraph.deploy_version.lock import LOCK_FILE, locked
from servegraph.deploy_version.plan import (
    DeployedVersion,
    DeployRequest,
    ModelFacts,
    ModelVersions,
    Outcome,
    OutcomeName,
    Plan,
)
from servegraph.deploy_version.probe import Probe
from servegraph.deploy_version.probe import probe as server_probe
from servegraph.deploy_version.served_graph import served
from servegraph.deploy_version.staging import copy_model, make_staging, remove_tree
from servegraph.deploy_version.targets import OnStep, say_nothing
from servegraph.deploy_version.targets.local_files import is_whole, see
from servegraph.deploy_version.targets.local_plan import Seen, make_plan, make_record, to_clear
from servegraph.deploy_version.targets.local_state import announced, finished, rolled_back, surplus, switched
from servegraph.errors import DeployRefused, InputError
from servegraph.serve.server import require_packages
from servegraph.serve.state import SPARE_FILE, STATE_FILE, ModelState, check_model_name, sync_directory, write_state
from servegraph.serve.versions import model_names
from servegraph.storage import open_dir
from servegraph.storage.local import answering

_TRIED = frozenset({"copy", "adopt"})  # actions after which a version is probed
LOCK_TIMEOUT_S = 300.0  # room for a deploy of gigabytes, probe and all


class LocalTarget:
    """Versions below the directory `root`. See `Target` for the contract."""

    def __init__(self, root: Path, probe: Probe | None = None, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
        """Deploy to `root`, which is made if need be; wait `lock_timeout_s` for other changes to end.

        Without a `probe` a server of ours tries what is deployed, and its packages have to be installed.
        """
        self._root = root.absolute()
        self._probe = probe or server_probe
        self._needs_server = probe is None
        self._lock_timeout_s = lock_timeout_s

    def plan(self, request: DeployRequest, model: ModelFacts) -> Plan:
        """Return what `apply` would do now."""
        model_dir = self._model_dir(request.name)
        return make_plan(request, model, see(model_dir, model.digest), model_dir)

    def apply(self, plan: Plan, on_step: OnStep = say_nothing) -> Outcome:
        """Do what the plan says, or, where another change came between, what it has become."""
        name = plan.request.name
        model_dir = self._model_dir(name)
        if self._needs_server and _TRIED & {step.action for step in plan.steps}:
            require_packages()  # before anything is copied
        with self._changing(model_dir):
            on_step("locked")
            seen = see(model_dir, plan.model.digest)
            plan = make_plan(plan.request, plan.model, seen, model_dir)
            refusal = plan.refusal()
            if refusal is not None:
                raise refusal
            state = _clear(model_dir, seen, int(plan.version), on_step)
            actions = {step.action for step in plan.steps}
            if actions & _TRIED:
                with _staged(model_dir) as staging:
                    state = self._prepare(plan, state, staging, on_step)
            before = state
            if actions & {"switch", "label"}:
                record = make_record(plan.request, plan.model, _now())
                wanted = plan.request
                share, keep = wanted.traffic_percent, wanted.keep_versions
                # Only now: a server that is running may still have in memory what is lost on disk.
                usable = state.without(seen.lost)
                state = switched(usable, int(plan.version), record, wanted.labels, keep, share)
            else:
                state = state.without(surplus(state, plan.request.keep_versions))
            removed = _settle(model_dir, before, state, on_step)
            made = int(plan.version)
            return _outcome(plan.outcome, model_dir, state, deployed=made, removed=removed, warnings=plan.warnings)

    def versions(self, name: str) -> ModelVersions:
        """Return the versions of the model, newest first."""
        model_dir = self._model_dir(name)
        seen = self._deployed(model_dir)
        state = seen.state
        return ModelVersions(
            target="local",
            name=name,
            resource=str(model_dir),
            live=_text(state.live),
            previous=_text(state.previous),
            versions=tuple(
                DeployedVersion(
                    version=str(number),
                    resource=str(model_dir / str(number)),
                    digest=record.digest,
                    created=record.created,
                    size_bytes=record.size_bytes,
                    config=record.config,
                    traffic_percent=state.traffic.get(number, 0),
                    labels=tuple(sorted(label for label, of in state.labels.items() if of == number)),
                    files=str(model_dir / str(number)),
                    files_lost=number in seen.lost,
                )
                for number, record in sorted(state.versions.items(), reverse=True)
            ),
        )

    def rollback(self, name: str, to: str | None = None) -> Outcome:
        """Give all traffic to version `to`, or to the previous one."""
        model_dir = self._model_dir(name)
        self._deployed(model_dir)
        with self._changing(model_dir):
            seen = self._deployed(model_dir)
            state = seen.state
            if to is None and state.rolled_back_from is not None:
                done = f"{name} is already rolled back from version {state.rolled_back_from} to {state.live}."
                return _outcome("unchanged", model_dir, state, warnings=(f"{done} Name another version with --to.",))
            number = state.previous if to is None else _version_number(to)
            if number is None:
                raise DeployRefused(
                    f"{name} has no version before {state.live} to roll back to.",
                    code="NO_PREVIOUS_VERSION",
                    fix="Deploy the model that should be live.",
                )
            _require_files(number, seen, model_dir)
            if state.traffic == {number: 100}:
                return _outcome("unchanged", model_dir, state)
            state = rolled_back(state, number)
            write_state(model_dir, state)
            return _outcome("rolled_back", model_dir, state)

    def undeploy(self, name: str, version: str | None = None) -> Outcome:
        """Remove a version that has no traffic, or the model with all its versions."""
        model_dir = self._model_dir(name)
        number = None if version is None else _version_number(version)
        if see(model_dir) == Seen():
            return _outcome("unchanged", model_dir, ModelState())
        with self._changing(model_dir):
            seen = see(model_dir)
            state = _clear(model_dir, seen, None, say_nothing)
            gone = tuple(state.versions) if number is None else tuple({number} & state.versions.keys())
            if number is not None and state.traffic.get(number):
                raise DeployRefused(
                    f"Version {number} of {name} has {state.traffic[number]} % of the traffic.",
                    code="HAS_TRAFFIC",
                    fix="Roll back first (`servegraph rollback`), or remove the whole model with --all.",
                )
            after = state.without(gone)
            removed = _settle(model_dir, state, after, say_nothing)
            if not after.versions:
                _remove_state(model_dir, seen)
            return _outcome("removed" if removed else "unchanged", model_dir, after, removed=removed)

    def _prepare(self, plan: Plan, state: ModelState, staging: Path, on_step: OnStep) -> ModelState:
        """Bring the version's files to where they belong, probed. Return the state as it is written then."""
        name, version = plan.request.name, plan.version
        model_dir = self._model_dir(name)
        staged = staging / name / version
        is_copy = any(step.action == "copy" for step in plan.steps)
        if is_copy:
            source = served(open_dir(plan.model.uri), plan.model.tags, strays=plan.model.for_own_code)
            copy_model(source, staged, plan.model.digest, lambda path: on_step(f"copying {path}"))
        else:
            with answering("write", staged):
                staged.parent.mkdir()
                staged.symlink_to(model_dir / version, target_is_directory=True)
        on_step("staged")
        routine = plan.model.routine
        golden = read_golden(open_dir(staged), routine)
        self._probe(staging, name, plan.model.signatures, golden, plan.request.tolerance, routine)
        on_step("probed")
        if is_copy:
            state = announced(state, int(version))
            write_state(model_dir, state)
            on_step("announced")
            with answering("publish", model_dir / version):
                staged.rename(model_dir / version)
                sync_directory(model_dir)
            on_step("published")
        return state

    def _model_dir(self, name: str) -> Path:
        return self._root / check_model_name(name)

    def _deployed(self, model_dir: Path) -> Seen:
        seen = see(model_dir)
        if not seen.state.versions:
            known = model_names(self._root) if self._root.is_dir() else []
            raise InputError(
                f"No version of {model_dir.name!r} is deployed to {str(self._root)!r}.",
                code="NOT_DEPLOYED",
                fix=f"Models there: {', '.join(known) or 'none'}.",
            )
        return seen

    @contextlib.contextmanager
    def _changing(self, model_dir: Path) -> Iterator[None]:
        with locked(model_dir, self._lock_timeout_s):
            try:
                yield
            finally:
                # A model that never came to be leaves no directory behind.
                if [entry.name for entry in model_dir.iterdir()] == [LOCK_FILE]:
                    (model_dir / LOCK_FILE).unlink()
                    with contextlib.suppress(OSError):  # the next change has come in
                        model_dir.rmdir()


@contextlib.contextmanager
def _staged(model_dir: Path) -> Iterator[Path]:
    staging = make_staging(model_dir)
    try:
        yield staging
    finally:
        remove_tree(staging)


def _clear(model_dir: Path, seen: Seen, keep: int | None, on_step: OnStep) -> ModelState:
    """Remove what unfinished changes left, but not version `keep`; return the state as it is written then."""
    for name in seen.leftovers:
        remove_tree(model_dir / name)
        on_step(f"cleared {name}")
    numbers = to_clear(seen, keep)
    for number in numbers:
        remove_tree(model_dir / str(number))
        on_step(f"cleared {number}")
    stale = [number for number in seen.state.unfinished if number in numbers or number not in seen.directories]
    state = finished(seen.state, stale)
    if stale:
        write_state(model_dir, state)
    return state


def _settle(model_dir: Path, before: ModelState, after: ModelState, on_step: OnStep) -> tuple[str, ...]:
    """Write the new state, then remove the directories of the versions that are no longer in it."""
    if after != before:
        write_state(model_dir, after)
        on_step("switched")
    gone = sorted(before.versions.keys() - after.versions.keys())
    for number in gone:
        remove_tree(model_dir / str(number))
        on_step(f"removed {number}")
    if gone:
        write_state(model_dir, finished(after, gone))
        on_step("settled")
    return tuple(map(str, gone))


def _remove_state(model_dir: Path, seen: Seen) -> None:
    """Remove the state of a model without versions; beside foreign versions it stays, or they go live."""
    if not seen.foreign:
        with answering("remove", model_dir / STATE_FILE):
            for name in (STATE_FILE, SPARE_FILE):
                (model_dir / name).unlink(missing_ok=True)


def _outcome(
    outcome: OutcomeName,
    model_dir: Path,
    state: ModelState,
    *,
    deployed: int | None = None,
    removed: tuple[str, ...] = (),
    warnings: tuple[str, ...] = (),
) -> Outcome:
    shown = state.live if deployed is None else deployed
    return Outcome(
        outcome=outcome,
        target="local",
        name=model_dir.name,
        version=_text(shown),
        resource=str(model_dir if shown is None else model_dir / str(shown)),
        machine_type=None if shown is None else state.versions[shown].config.machine_type,
        previous=_text(state.previous),
        traffic={str(number): share for number, share in state.traffic.items()},
        labels={label: str(number) for label, number in state.labels.items()},
        removed=removed,
        warnings=warnings,
    )


def _require_files(number: int, seen: Seen, model_dir: Path) -> None:
    """Refuse a version that is not there, or not what was deployed: its files are read.

    Raises:
        InputError: nothing knows of it (code `NOT_DEPLOYED`).
        DeployRefused: its files are gone or damaged (code `FILES_LOST`).
    """
    there = f"Versions: {', '.join(map(str, sorted(seen.usable.versions))) or 'none'}."
    if number not in seen.state.versions:
        raise InputError(f"{model_dir.name} has no version {number}.", code="NOT_DEPLOYED", fix=there)
    version_dir = model_dir / str(number)
    if not is_whole(version_dir, seen.state.versions[number], read=True):
        what = "are gone from" if number in seen.lost else "are not those that were deployed to"
        raise DeployRefused(
            f"The files of version {number} of {model_dir.name} {what} {str(version_dir)!r}.",
            code="FILES_LOST",
            fix=f"Put them back, or deploy the model again. {there}",
        )


def _version_number(version: str) -> int:
    if not (version.isascii() and version.isdecimal()):
        raise InputError(
            f"{version!r} is not a version; the versions of a local model are whole numbers.",
            fix="List them with `servegraph versions`.",
        )
    return int(version)


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
