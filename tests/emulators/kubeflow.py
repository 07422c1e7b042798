"""An emulated API server of Kubeflow Pipelines on loopback: experiments, runs, recurring runs, and logs of pods.

Bodies are held to the types of the models in `kfp_server_api`, pipelines to the protobuf of the specification.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from typing import Any

import kfp_server_api.models
from google.protobuf.json_format import ParseDict, ParseError
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec, PlatformSpec
from tests.emulators.google_api import Refused, need, now
from tests.emulators.http_server import Answer, LoopbackServer, Request, json_answer
from tests.emulators.vertex_pipelines import check_cron, in_order

_PLAIN: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (int, float),
    "datetime": (str,),
}
# The gateway takes these numbers as numbers or as text; the models say text.
_INT64 = {"max_concurrency", "interval_second"}


def problems(value: Any, kind: str, at: str, models: Any = kfp_server_api.models) -> list[str]:
    """What is wrong with a JSON value by generated models, those of `kfp_server_api` or of the Kubernetes client."""
    if found := re.fullmatch(r"list\[(.+)\]", kind):
        return [p for i, item in enumerate(value) for p in problems(item, found[1], f"{at}[{i}]", models)]
    if found := re.fullmatch(r"dict\(str, ?(.+)\)", kind):
        return [p for key, item in value.items() for p in problems(item, found[1], f"{at}.{key}", models)]
    if kind == "object":
        return []
    if kind in _PLAIN:
        return [] if isinstance(value, _PLAIN[kind]) else [f"{at}: expected {kind}, got {value!r}"]
    model = getattr(models, kind)
    if hasattr(model, "allowable_values"):
        return [] if value in model.allowable_values else [f"{at}: {value!r} is no {kind}"]
    types = {model.attribute_map[name]: t for name, t in model.openapi_types.items()}
    unknown = [f"{at}.{name}: unknown field" for name in value if name not in types]
    return unknown + [
        problem
        for name, item in value.items()
        if name in types and not (name in _INT64 and isinstance(item, int))
        for problem in problems(item, types[name], f"{at}.{name}", models)
    ]


class FakeKubeflow(LoopbackServer):
    """One namespace. `fails` and `prints` say what becomes of a step; RUN/STEP prints, of a step of one run."""

    def __init__(self) -> None:
        super().__init__(self._respond)
        self.experiments: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.recurring: dict[str, dict[str, Any]] = {}
        self.fails: dict[str, str] = {}
        self.prints: dict[str, str] = {}
        self.numbers = itertools.count(1)
        base, ident = r"/apis/v2beta1", r"/([\w-]+)"
        self._routes: list[tuple[str, str, Callable[..., Any]]] = [
            ("GET", base + "/healthz", lambda request: {"multi_user": False}),
            ("GET", base + "/experiments", lambda r: self._list(r, self.experiments, "experiments")),
            ("POST", base + "/experiments", self._create_experiment),
            ("POST", base + "/runs", self._create_run),
            ("GET", base + "/runs", lambda r: self._list(r, self.runs, "runs")),
            ("GET", base + "/runs" + ident, self._get_run),
            ("POST", base + "/recurringruns", self._create_recurring),
            ("GET", base + "/recurringruns", lambda r: self._list(r, self.recurring, "recurringRuns")),
            ("POST", base + "/recurringruns" + ident + ":(enable|disable)", self._switch),
            ("DELETE", base + "/recurringruns" + ident, self._delete_recurring),
            ("GET", r"/apis/v1alpha1/runs" + ident + "/nodes" + ident + "/log", self._log),
        ]

    def _respond(self, request: Request) -> Answer:
        try:
            for verb, pattern, handle in self._routes:
                found = re.fullmatch(pattern, request.path)
                if found and verb == request.method:
                    answer = handle(request, *found.groups())
                    return Answer(body=answer.encode()) if isinstance(answer, str) else json_answer(answer)
            raise Refused(404, f"No such route: {request.method} {request.path}")
        except Refused as refusal:
            return json_answer({"error": refusal.message, "message": refusal.message, "code": 3}, refusal.status)

    def _checked(self, request: Request, kind: str) -> dict[str, Any]:
        body = request.json()
        wrong = problems(body, kind, kind)
        need(not wrong, "; ".join(wrong))
        return body

    def _list(self, request: Request, where: dict[str, dict[str, Any]], key: str) -> dict[str, Any]:
        asked = json.loads(request.query.get("filter") or "{}").get("predicates", [])
        need(all(p["operation"] == "EQUALS" or p["operation"] == 1 for p in asked), "Only EQUALS.")
        names = [p.get("stringValue", p.get("string_value")) for p in asked]
        rows = [row for row in where.values() if all(row["display_name"] == name for name in names)]
        need(request.query.get("sort_by", "") in ("", "created_at desc"), "Only by created_at desc.")
        rows = rows[::-1] if request.query.get("sort_by") else rows
        start, size = int(request.query.get("page_token") or 0), int(request.query.get("page_size") or 20)
        more = {"next_page_token": str(start + size)} if len(rows) > start + size else {}
        return {key: rows[start : start + size], **more}

    def _create_experiment(self, request: Request) -> dict[str, Any]:
        body = self._checked(request, "V2beta1Experiment")
        need(all(row["display_name"] != body["display_name"] for row in self.experiments.values()), "It exists.", 409)
        made = {**body, "experiment_id": f"experiment-{next(self.numbers)}"}
        self.experiments[made["experiment_id"]] = made
        return made

    def _create_run(self, request: Request) -> dict[str, Any]:
        body = self._checked(request, "V2beta1Run")
        steps = in_order(self._check_pipeline(body)["root"]["dag"]["tasks"])
        run = {**body, "run_id": f"run-{next(self.numbers)}", "state": "PENDING", "created_at": now()}
        run["run_details"] = {"task_details": [{"task_id": s, "display_name": s, "state": "PENDING"} for s in steps]}
        self.runs[run["run_id"]] = run
        return run

    def _check_pipeline(self, body: dict[str, Any]) -> dict[str, Any]:
        need(body.get("experiment_id") in self.experiments, "There is no such experiment.", 404)
        document = body["pipeline_spec"]
        if "pipeline_spec" not in document:
            document = {"pipeline_spec": document}
        try:
            ParseDict(document["pipeline_spec"], PipelineSpec())
            ParseDict(document.get("platform_spec", {}), PlatformSpec())
        except ParseError as error:
            raise Refused(400, f"Invalid pipeline: {error}") from error
        specification: dict[str, Any] = document["pipeline_spec"]
        known = specification["root"].get("inputDefinitions", {}).get("parameters", {})
        given = body.get("runtime_config", {}).get("parameters", {})
        need(set(given) <= set(known), f"Unknown parameters {sorted(set(given) - set(known))}")
        return specification

    def _get_run(self, request: Request, run_id: str) -> dict[str, Any]:
        need(run_id in self.runs, f"Run {run_id} not found.", 404)
        run = self.runs[run_id]
        shown: dict[str, Any] = json.loads(json.dumps(run))
        tasks = run["run_details"]["task_details"]
        for task in tasks:
            if task["state"] == "RUNNING":
                task |= {"state": "SUCCEEDED", "end_time": now()}
                if task["display_name"] in self.fails:
                    task |= {"state": "FAILED", "error": {"code": 2, "message": self.fails[task["display_name"]]}}
                    run |= {"state": "FAILED", "error": {"code": 2, "message": "child nodes failed"}}
        waiting = next((task for task in tasks if task["state"] == "PENDING"), None)
        if run["state"] != "FAILED":
            run["state"] = "RUNNING" if waiting else "SUCCEEDED"
            if waiting:
                waiting |= {
                    "state": "RUNNING",
                    "start_time": now(),
                    "child_tasks": [{"pod_name": f"pod-{waiting['task_id']}"}],
                }
        return shown

    def fire(self) -> None:
        """Let every enabled recurring run start a run, and let it end."""
        for row in self.recurring.values():
            if row["status"] == "ENABLED":
                state = (
                    {"state": "FAILED", "error": {"code": 2, "message": "failed"}}
                    if self.fails
                    else {"state": "SUCCEEDED"}
                )
                run = {"run_id": f"run-{next(self.numbers)}", "created_at": now(), "display_name": row["display_name"]}
                run |= {"experiment_id": row["experiment_id"], "recurring_run_id": row["recurring_run_id"], **state}
                self.runs[run["run_id"]] = run

    def _log(self, request: Request, run_id: str, pod: str) -> str:
        step = pod.removeprefix("pod-")
        printed = self.prints.get(f"{run_id}/{step}", self.prints.get(step))
        need(printed is not None, "No such pod.", 404)
        return str(printed)

    def _create_recurring(self, request: Request) -> dict[str, Any]:
        body = self._checked(request, "V2beta1RecurringRun")
        self._check_pipeline(body)
        check_cron(body["trigger"]["cron_schedule"]["cron"], fields=6)
        need(1 <= int(body["max_concurrency"]) <= 10, "max_concurrency must be from 1 to 10.")
        made = {**body, "recurring_run_id": f"recurring-{next(self.numbers)}", "created_at": now()}
        made["status"] = "ENABLED" if body["mode"] == "ENABLE" else "DISABLED"
        made["max_concurrency"] = str(body["max_concurrency"])
        self.recurring[made["recurring_run_id"]] = made
        return made

    def _switch(self, request: Request, recurring_id: str, what: str) -> dict[str, Any]:
        need(recurring_id in self.recurring, "There is no such recurring run.", 404)
        self.recurring[recurring_id]["status"] = "ENABLED" if what == "enable" else "DISABLED"
        return {}

    def _delete_recurring(self, request: Request, recurring_id: str) -> dict[str, Any]:
        need(self.recurring.pop(recurring_id, None), "There is no such recurring run.", 404)
        return {}
