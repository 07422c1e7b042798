"""Recurring runs of Kubeflow Pipelines. The API changes none of them: whatever differs, it is made anew."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from servegraph.deploy_version.faults import NotFound
from servegraph_pipelines.engines.kubeflow import KubeflowEngine
from servegraph_pipelines.schedules.converge import Found, PastRun, put_back
from servegraph_pipelines.schedules.spec import Schedule

_NOTE = "servegraph "  # what the description starts with: then the digest of what is run


class KubeflowSchedules:
    """The recurring runs of one installation."""

    can_patch_timing = False

    def __init__(self, engine: KubeflowEngine) -> None:
        """Take the engine's place; nothing is sent yet."""
        self._engine = engine

    def content(self, schedule: Schedule) -> Any:
        """Return the parameters, and a digest over all that is run: how the service stores a pipeline is its own."""
        parameters = {name: _number(value) for name, value in schedule.request.parameters.items()}
        return {"parameters": parameters, "digest": self._digest(schedule)}

    def timing(self, schedule: Schedule) -> Any:
        """Return when it runs."""
        return {
            "cron": schedule.timing.cron.six(),
            "max_concurrency": schedule.timing.concurrency,
            "catch_up": schedule.timing.catch_up,
        }

    def find(self, name: str) -> list[Found]:
        """Return the recurring runs of that name, oldest first."""
        rows = self._rows(name)
        rows.sort(key=lambda row: (str(row.created_at), row.recurring_run_id))
        return [_found(row) for row in rows]

    def create(self, schedule: Schedule, *, paused: bool) -> None:
        """Make it."""
        prepared, experiment = self._engine.prepared(schedule.request), self._engine.experiment_id()
        with self._engine.package(prepared) as package:
            self._make(
                schedule.name,
                lambda client: client.create_recurring_run(
                    experiment,
                    schedule.name,
                    description=_NOTE + self._digest(schedule),
                    cron_expression=schedule.timing.cron.six(),
                    max_concurrency=schedule.timing.concurrency,
                    no_catchup=not schedule.timing.catch_up,
                    pipeline_package_path=package,
                    pipeline_root=self._engine.root,
                    params=dict(schedule.request.parameters),
                    enabled=not paused,
                    service_account=schedule.request.options.service_account,
                ),
            )

    def patch(self, found: Found, schedule: Schedule) -> None:
        """Not there."""
        raise NotImplementedError

    def remake(self, found: Found) -> None:
        """Make a recurring run again as it was found."""
        row = found.body
        for output_only in ("recurring_run_id", "created_at", "updated_at", "error"):
            setattr(row, output_only, None)
        row.mode, row.status = "DISABLE" if found.paused else "ENABLE", None
        self._make(
            found.name,
            lambda client: client._recurring_run_api.recurring_run_service_create_recurring_run(recurring_run=row),
        )

    def runs(self, found: Found) -> list[PastRun]:
        """Return the runs of the recurring run among the newest of the experiment."""

        def newest() -> Any:
            with self._engine.place.calling("runs") as client:
                return client.list_runs(
                    page_size=100, sort_by="created_at desc", experiment_id=found.body.experiment_id
                )

        return [_past(row) for row in self._engine.place.again(newest).runs or [] if row.recurring_run_id == found.id]

    def delete(self, found: Found) -> None:
        """Remove it."""
        try:
            self._switch("delete", found.id)
        except NotFound:
            return

    def pause(self, found: Found) -> None:
        """Start no further runs."""
        self._switch("disable", found.id)

    def resume(self, found: Found, schedule: Schedule) -> None:
        """Start runs again. Enabled as it is, the newest missed run would start at once; so it is made anew."""
        if schedule.timing.catch_up:
            self._switch("enable", found.id)
            return
        schedule.prepare()  # before the old one is gone
        with put_back(self, [found]):
            self.delete(found)
            self.create(schedule, paused=False)

    def _make(self, name: str, send: Callable[[Any], object]) -> None:
        """Let the client `send` what makes a recurring run of that name."""
        tries = 0

        def make() -> None:
            nonlocal tries
            tries += 1
            if tries > 1 and self._rows(name):  # an answer got lost: it is there
                return
            with self._engine.place.calling(name) as client:
                send(client)

        self._engine.place.again(make)

    def _rows(self, name: str) -> list[Any]:
        """Return the recurring runs of that name, of all pages."""
        predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        asked = {"page_size": 100, "filter": json.dumps({"predicates": [predicate]})}
        asked["experiment_id"] = self._engine.experiment_id()
        rows: list[Any] = []
        token = ""
        while True:

            def page(token: str = token) -> Any:
                with self._engine.place.calling(f"recurring runs named {name}") as client:
                    return client.list_recurring_runs(page_token=token, **asked)

            answer = self._engine.place.again(page)
            rows += answer.recurring_runs or []
            token = answer.next_page_token or ""
            if not token:
                return rows

    def _switch(self, what: str, recurring_run_id: str) -> None:
        """Enable, disable or delete a recurring run; each is the same done twice."""

        def switch() -> None:
            with self._engine.place.calling(f"{what} of recurring run {recurring_run_id}") as client:
                getattr(client, f"{what}_recurring_run")(recurring_run_id)

        self._engine.place.again(switch)

    def _digest(self, schedule: Schedule) -> str:
        prepared, options = self._engine.prepared(schedule.request), schedule.request.options
        asked = [prepared.digest, dict(schedule.request.parameters), options.service_account, self._engine.root]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _past(row: Any) -> PastRun:
    failed = True if row.state == "FAILED" else False if row.state == "SUCCEEDED" else None
    return PastRun(row.run_id, failed, (row.error.message or "") if row.error else "")


def _found(row: Any) -> Found:
    parameters = (row.runtime_config.parameters if row.runtime_config else None) or {}
    note = row.description or ""
    schedule = row.trigger.cron_schedule if row.trigger else None
    return Found(
        id=row.recurring_run_id,
        name=row.display_name,
        content={
            "parameters": {name: _number(value) for name, value in parameters.items()},
            "digest": note.removeprefix(_NOTE) if note.startswith(_NOTE) else "",
        },
        timing={
            "cron": schedule.cron if schedule else "",
            "max_concurrency": int(row.max_concurrency or 1),
            "catch_up": not row.no_catchup,
        },
        paused=row.status != "ENABLED",
        body=row,
    )


def _number(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _number(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_number(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
