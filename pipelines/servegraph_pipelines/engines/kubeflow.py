"""Runs on Kubeflow Pipelines, through `kfp.Client`."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from servegraph import taken
from servegraph.deploy_version.faults import TRANSIENT, NotFound, Patience, fault_of, no_answer
from servegraph.deploy_version.google_api import is_loopback
from servegraph.errors import InputError
from servegraph.extras import package_missing
from servegraph_pipelines.engines.runs import (
    RunRequest,
    RunState,
    RunStatus,
    StepState,
    StepStatus,
    duration,
    in_seconds,
    none_before,
)
from servegraph_pipelines.resources import EngineName
from servegraph_pipelines.specification import Specification
from servegraph_pipelines.why import PastRun

T = TypeVar("T")
CALL_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 5.0
_TOKEN = re.compile(rb"[!-~]+")  # what a header may have
_WITH_NAME = re.compile(r"(\w+://)?[^/?#]*@")  # an address with a name, or a password, before the host
_RUN: dict[str, RunStatus] = {
    "SUCCEEDED": "succeeded",
    "SKIPPED": "succeeded",
    "FAILED": "failed",
    "CANCELED": "cancelled",
    "CANCELING": "running",
    "RUNNING": "running",
    "PAUSED": "running",
}
_STEP: dict[str, StepStatus] = {
    "RUNNING": "running",
    "PAUSED": "running",
    "SUCCEEDED": "succeeded",
    "SKIPPED": "skipped",
    "FAILED": "failed",
    "CANCELING": "running",
    "CANCELED": "cancelled",
}
_NOT_HERE = {
    "network": "the cluster's network is what it is",
    "encryption_key": "the cluster's storage has its own",
    "fail_fast": "it always goes on with what does not depend on the failed step",
}


class KubeflowEngine:
    """One installation of Kubeflow Pipelines, by the address of its API."""

    name: EngineName = "kfp"

    def __init__(
        self,
        host: str,
        *,
        namespace: str | None = None,
        experiment: str = "Default",
        pipeline_root: str | None = None,
        token_file: Path | None = None,
        patience: Callable[[], Patience] = Patience,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        """Name the place; nothing is imported or sent yet. Without a token, the client's own configuration counts.

        Raises:
            InputError: a password stands in the address, which is shown and logged (code `BAD_URL`).
        """
        if _WITH_NAME.match(host):
            raise InputError(
                "The address of Kubeflow Pipelines has a name or a password in it.",
                code="BAD_URL",
                fix="Leave them out, and give a token with --token-file.",
            )
        self._connect_timeout_s = connect_timeout_s
        self._host, self._namespace, self._experiment = host.rstrip("/"), namespace, experiment
        self.root, self._token_file = pipeline_root, token_file
        self._patience = patience()  # one for all calls: once the place has answered, an outage is waited out

    def body(self, request: RunRequest) -> dict[str, Any]:
        """Return the run as the API takes it."""
        specification = self.prepared(request)
        body: dict[str, Any] = {
            "display_name": request.name,
            "pipeline_spec": {"pipeline_spec": specification.document, "platform_spec": specification.platforms},
            "runtime_config": {"parameters": dict(request.parameters), "pipeline_root": self.root},
            "service_account": request.options.service_account,
        }
        return {name: value for name, value in body.items() if value is not None}

    def prepared(self, request: RunRequest) -> Specification:
        """Return the pipeline with the labels on its pods: the API has none for runs.

        Raises:
            InputError: an option that a cluster has no use for (code `NOT_FOR_ENGINE`).
        """
        for name, why in _NOT_HERE.items():
            if getattr(request.options, name):
                option = name.replace("_", "-")
                raise InputError(
                    f"Kubeflow Pipelines has no {option}: {why}.", code="NOT_FOR_ENGINE", fix="Leave it out."
                )
        return request.specification.with_pod_labels(request.options.labels)

    def submit(self, request: RunRequest) -> RunState:
        """Create the run; the API takes a name twice, so before a second try one is looked for that was not there."""
        specification = self.prepared(request)
        experiment = self.experiment_id()
        before = {run.run_id for run in self.again(lambda: self._named(request.name, experiment))}
        tries = 0

        def create() -> Any:
            nonlocal tries
            tries += 1
            found = self._named(request.name, experiment) if tries > 1 else []
            if new := [run for run in found if run.run_id not in before]:
                return new[0]
            with self.package(specification) as package, self.calling(f"run {request.name}") as client:
                return client.run_pipeline(
                    experiment_id=experiment,
                    job_name=request.name,
                    pipeline_package_path=package,
                    params=dict(request.parameters),
                    pipeline_root=self.root,
                    service_account=request.options.service_account,
                )

        return self._state(self.again(create))

    def state(self, run_id: str) -> RunState:
        """Return the state of a run."""
        return self._state(self._run(run_id))

    def _state(self, run: Any) -> RunState:
        return RunState(
            id=str(run.run_id),
            link=f"{self._host}/#/runs/details/{run.run_id}",
            status=_RUN.get(run.state or "", "waiting"),
            steps=_steps(run),
            message=(run.error.message or "") if run.error else "",
        )

    def log(self, run_id: str, step: StepState) -> list[str]:
        """Return what the pods of a step printed, as the API server has it: the SDK has no call for it."""
        import urllib3

        lines: list[str] = []
        with urllib3.PoolManager(retries=False) as pool:
            for pod in step.log:  # the one that decides what to run, and the one that runs it
                path = f"{self._host}/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log"
                with contextlib.suppress(urllib3.exceptions.HTTPError):
                    answer = pool.request("GET", path, headers=self._headers(), timeout=CALL_TIMEOUT_S)
                    if answer.status == 200:
                        lines += answer.data.decode("utf-8", "replace").splitlines()
        return lines

    def past(self, run_id: str, against: str | None) -> tuple[PastRun, PastRun]:
        """Return a run and `against`, or the run before it of the same pipeline among the newest of its experiment."""
        run = self._run(run_id)
        if against is not None:
            return self._past(run), self._past(self._run(against))
        pipeline = _told(run).name
        with self.calling("runs") as client:
            answer = client.list_runs(page_size=100, sort_by="created_at desc", experiment_id=run.experiment_id)
        for other in answer.runs or []:
            if str(other.created_at) < str(run.created_at):
                before = self._run(other.run_id)
                specification = _specification(before)
                if specification is not None and specification.name == pipeline:
                    return self._past(run), self._past(before)
        raise none_before(run_id, pipeline)

    def _run(self, run_id: str) -> Any:
        def get() -> Any:
            with self.calling(f"run {run_id}") as client:
                return client.get_run(run_id)

        return self.again(get)

    def _past(self, run: Any) -> PastRun:
        """Return what ran; of artifacts the API tells nothing, so that their digests are read in the steps' logs."""
        specification = _told(run)
        names = [step.name for step in specification.steps]
        values = (run.runtime_config.parameters if run.runtime_config else None) or {}
        contents = {step.name: taken.read(self.log(run.run_id, step)) for step in _steps(run) if step.name in names}
        return PastRun(run.run_id, specification, values, contents)

    def close(self) -> None:
        """Close the connections."""
        if "_client" in vars(self):
            self._client._run_api.api_client.rest_client.pool_manager.clear()

    def experiment_id(self) -> str:
        """Return the id of the experiment, made if there is none of that name."""

        def create() -> str:
            with self.calling(f"experiment {self._experiment}") as client:
                return str(client.create_experiment(self._experiment, namespace=self._namespace).experiment_id)

        return self.again(create)

    def again(self, call: Callable[[], T]) -> T:
        """Call it until it is answered: faults that pass are waited out, so its second time must find the first."""
        return self._patience.again(call)

    @contextlib.contextmanager
    def package(self, specification: Specification) -> Iterator[str]:
        """Yield a file with the pipeline, which is how the client takes one."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pipeline.yaml"
            path.write_text(specification.to_yaml(), encoding="utf-8")
            yield str(path)

    @contextlib.contextmanager
    def calling(self, what: str) -> Iterator[Any]:
        """Yield the client; what it prints is not shown, and its errors are faults."""
        from kfp_server_api.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield self._client
        except ApiException as exc:
            if not exc.status:  # so it passes on that there is no connection over TLS
                raise no_answer(f"{what} of {self._host}", exc) from exc
            raise fault_of(int(exc.status), _message(exc), what) from exc
        except (HTTPError, OSError) as exc:
            fix = "Check --host and the network, then run again."
            raise no_answer(f"{what} of {self._host}", exc, fix) from exc

    @functools.cached_property
    def _client(self) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # that it needs Kubeflow Pipelines 2
                from kfp import Client

                token = self._token()
                self._reach()
                return Client(host=self._host, namespace=self._namespace or "kubeflow", existing_token=token)
        except ImportError as exc:
            raise package_missing("kfp", "Kubeflow Pipelines") from exc

    def _reach(self) -> None:
        """Ask for the API's health: the client would do so for minutes where packets are dropped or nothing is there.

        Raises:
            InputError: the address is none (code `BAD_URL`).
            NotFound: something else answers at the address.
        """
        import urllib3

        url = self._host if "://" in self._host else f"https://{self._host}"  # as the client takes it
        timeout = urllib3.Timeout(connect=self._connect_timeout_s, read=CALL_TIMEOUT_S)
        with urllib3.PoolManager(retries=False) as pool, contextlib.suppress(urllib3.exceptions.SSLError):
            try:
                answer = pool.request("GET", f"{url}/apis/v2beta1/healthz", headers=self._headers(), timeout=timeout)
            except urllib3.exceptions.LocationValueError as exc:
                raise InputError(
                    f"{self._host!r} is no address: {exc}.", code="BAD_URL", fix="Give http:// or https:// and a host."
                ) from exc
            if answer.status == 404:
                raise NotFound(
                    f"There is no Kubeflow Pipelines 2 at {self._host}: it knows no /apis/v2beta1/healthz.",
                    fix="Check --host. In an installation of all of Kubeflow it ends in /pipeline.",
                )
            if answer.status in TRANSIENT:  # with 401 and the like the client may know more
                raise fault_of(answer.status, answer.reason or "", f"health of {self._host}")

    def _named(self, name: str, experiment: str) -> list[Any]:
        """Return the newest runs of that name, a hundred at most."""
        named = json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})
        asked = {"page_size": 100, "sort_by": "created_at desc", "experiment_id": experiment, "filter": named}
        with self.calling(f"runs named {name}") as client:
            return list(client.list_runs(**asked).runs or [])

    def _token(self) -> str | None:
        if self._token_file is None:
            return None
        is_loopback(self._host)  # elsewhere it goes out encrypted only
        try:
            token = self._token_file.read_bytes().strip()
        except OSError as exc:
            raise _no_token(f"The token {self._token_file} cannot be read: {exc}.") from exc
        if not _TOKEN.fullmatch(token):  # the client would quote it in its error
            raise _no_token(f"The file {self._token_file} holds no token: nothing, or more than one line or word.")
        return token.decode()

    def _headers(self) -> dict[str, str]:
        token = self._token()
        return {"Authorization": f"Bearer {token}"} if token else {}


def _no_token(what: str) -> InputError:
    fix = "Give --token-file a file that can be read and holds the token alone."
    return InputError(what, code="NO_CREDENTIALS", fix=fix)


def _specification(run: Any) -> Specification | None:
    """Return what ran; None of a run of a stored pipeline, to which the run only refers, or of one of KFP 1."""
    stored: Mapping[str, Any] = run.pipeline_spec or {}
    document = stored.get("pipeline_spec", stored)
    return Specification(document) if {"pipelineInfo", "root"} <= document.keys() else None


def _told(run: Any) -> Specification:
    specification = _specification(run)
    if specification is None:
        raise InputError(
            f"The run {run.run_id} is of a pipeline that the service has stored: of its steps the run tells nothing.",
            code="NO_SPECIFICATION",
            fix="Name runs that `servegraph submit` or a schedule of servegraph started.",
        )
    return specification


def _steps(run: Any) -> tuple[StepState, ...]:
    details = (run.run_details.task_details if run.run_details else None) or []
    return tuple(_step(detail, details) for detail in details)


def _step(detail: Any, details: list[Any]) -> StepState:
    start, end = in_seconds(detail.start_time), in_seconds(detail.end_time)
    below = [child for child in details if child.parent_task_id == detail.task_id and detail.task_id]
    pods = [detail.pod_name, *(child.pod_name for child in detail.child_tasks or ()), *(row.pod_name for row in below)]
    return StepState(
        name=detail.display_name or "",
        status=_STEP.get(detail.state or "", "waiting"),
        started=start or 0.0,
        seconds=duration(start, end if end and end > 0 else None),
        message=(detail.error.message or "") if detail.error else "",
        log=tuple(dict.fromkeys(pod for pod in pods if pod)),
    )


def _message(exc: Any) -> str:
    try:
        document: Mapping[str, Any] = json.loads(exc.body)
        return str(document.get("message") or document.get("error_message") or document["error"])
    except (ValueError, KeyError, TypeError):
        return str(exc.reason)
