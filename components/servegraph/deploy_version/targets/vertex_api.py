"""Calls to Vertex AI through google-cloud-aiplatform: JSON in, JSON out, faults in the kinds that are told apart.

The low-level clients over REST are used, and not the classes on top of them: those hide the bodies that a plan shows,
and raise them as they see fit. Every body is checked against the published schema first.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from servegraph.deploy_version.discovery import load, require_valid
from servegraph.deploy_version.faults import Patience, fault_of, no_answer, unreadable
from servegraph.deploy_version.google_api import GoogleApi, check_credentials, host_of, is_loopback, no_credentials
from servegraph.errors import in_short
from servegraph.extras import package_missing

PREFIX = "aiplatform.projects.locations."
CALL_TIMEOUT_S = 60.0


class _Rpc(NamedTuple):
    """How a method is called: the client, its function, the message, and the message's field that is the body."""

    client: str
    function: str
    message: str
    body: str = ""


RPCS = {
    "models.upload": _Rpc("Model", "upload_model", "UploadModelRequest"),
    "models.get": _Rpc("Model", "get_model", "GetModelRequest"),
    "models.list": _Rpc("Model", "list_models", "ListModelsRequest"),
    "models.listVersions": _Rpc("Model", "list_model_versions", "ListModelVersionsRequest"),
    "models.mergeVersionAliases": _Rpc("Model", "merge_version_aliases", "MergeVersionAliasesRequest"),
    "models.deleteVersion": _Rpc("Model", "delete_model_version", "DeleteModelVersionRequest"),
    "models.delete": _Rpc("Model", "delete_model", "DeleteModelRequest"),
    "endpoints.create": _Rpc("Endpoint", "create_endpoint", "CreateEndpointRequest", "endpoint"),
    "endpoints.get": _Rpc("Endpoint", "get_endpoint", "GetEndpointRequest"),
    "endpoints.list": _Rpc("Endpoint", "list_endpoints", "ListEndpointsRequest"),
    "endpoints.patch": _Rpc("Endpoint", "update_endpoint", "UpdateEndpointRequest", "endpoint"),
    "endpoints.delete": _Rpc("Endpoint", "delete_endpoint", "DeleteEndpointRequest"),
    "endpoints.deployModel": _Rpc("Endpoint", "deploy_model", "DeployModelRequest"),
    "endpoints.undeployModel": _Rpc("Endpoint", "undeploy_model", "UndeployModelRequest"),
    "endpoints.predict": _Rpc("Prediction", "predict", "PredictRequest"),
    "customJobs.create": _Rpc("Job", "create_custom_job", "CreateCustomJobRequest", "customJob"),
    "pipelineJobs.create": _Rpc("Pipeline", "create_pipeline_job", "CreatePipelineJobRequest", "pipelineJob"),
    "pipelineJobs.get": _Rpc("Pipeline", "get_pipeline_job", "GetPipelineJobRequest"),
    "pipelineJobs.list": _Rpc("Pipeline", "list_pipeline_jobs", "ListPipelineJobsRequest"),
    "schedules.create": _Rpc("Schedule", "create_schedule", "CreateScheduleRequest", "schedule"),
    "schedules.delete": _Rpc("Schedule", "delete_schedule", "DeleteScheduleRequest"),
    "schedules.list": _Rpc("Schedule", "list_schedules", "ListSchedulesRequest"),
    "schedules.patch": _Rpc("Schedule", "update_schedule", "UpdateScheduleRequest", "schedule"),
    "schedules.pause": _Rpc("Schedule", "pause_schedule", "PauseScheduleRequest"),
    "schedules.resume": _Rpc("Schedule", "resume_schedule", "ResumeScheduleRequest"),
}


class VertexApi(GoogleApi):
    """The service in one region. `url` is for an emulator; without credentials it is on loopback only."""

    def __init__(
        self,
        region: str,
        url: str | None = None,
        poll_s: float = 5.0,
        patience: Callable[[], Patience] = Patience,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        """Name the service; nothing is imported or sent yet."""
        self._host = url or host_of("aiplatform", region)
        self._anonymous, self._timeout_s = is_loopback(url), timeout_s
        super().__init__(poll_s, patience)

    def call(self, method: str, params: Mapping[str, str], body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and return the answer."""
        require_valid(load("aiplatform", "v1"), PREFIX + method, params, body)
        rpc = RPCS[method]
        client, types = self._client(rpc.client)
        document: dict[str, Any] = {**params, **(body or {})}
        if rpc.body:
            inner = {"name": params["name"]} if "name" in params else {}
            document = {**{k: v for k, v in params.items() if k != "name"}, rpc.body: {**(body or {}), **inner}}
        request = getattr(types, rpc.message).from_json(json.dumps(document))
        resource = next((params[name] for name in ("name", "endpoint", "parent") if name in params), "")
        with _faults(f"{method} of {resource}"):
            answer = getattr(client, rpc.function)(request=request, retry=None, timeout=self._timeout_s)
            return _as_json(answer)

    def operations(self, resource: str) -> list[str]:
        """Return the names of the operations on a resource that have not ended."""
        from google.longrunning.operations_pb2 import ListOperationsRequest

        client, _ = self._client("Endpoint")
        names, token = [], ""
        while True:

            def page(token: str = token) -> Any:
                with _faults(f"operations.list of {resource}"):
                    request = ListOperationsRequest(name=resource, page_token=token)
                    return client.list_operations(request=request, retry=None, timeout=self._timeout_s)

            answer = self._patience().again(page)
            names += [operation.name for operation in answer.operations if not operation.done]
            token = answer.next_page_token
            if not token:
                return names

    def _cancel(self, name: str) -> None:
        from google.longrunning.operations_pb2 import CancelOperationRequest

        client, _ = self._client("Endpoint")
        with _faults(f"cancel of {name}"):
            client.cancel_operation(request=CancelOperationRequest(name=name), retry=None, timeout=self._timeout_s)

    def _operation(self, name: str) -> dict[str, Any]:
        from google.longrunning.operations_pb2 import GetOperationRequest

        client, _ = self._client("Endpoint")
        with _faults(f"operations.get of {name}"):
            answer = client.get_operation(request=GetOperationRequest(name=name), retry=None, timeout=self._timeout_s)
        error = {"code": answer.error.code, "message": answer.error.message} if answer.HasField("error") else {}
        return {"done": answer.done, "error": error}

    @functools.cache  # noqa: B019  one object a process
    def _client(self, kind: str) -> tuple[Any, Any]:
        try:
            from google.cloud import aiplatform_v1
        except ImportError as exc:
            raise package_missing("google.cloud.aiplatform_v1", "The target vertex") from exc
        from google.auth.credentials import AnonymousCredentials
        from google.auth.exceptions import GoogleAuthError

        make = getattr(aiplatform_v1, f"{kind}ServiceClient")
        credentials = AnonymousCredentials() if self._anonymous else None
        if credentials is None:
            check_credentials()
        try:
            client = make(transport="rest", client_options={"api_endpoint": self._host}, credentials=credentials)
        except GoogleAuthError as exc:
            raise no_credentials(exc) from exc
        return client, aiplatform_v1


@contextlib.contextmanager
def _faults(what: str) -> Iterator[None]:
    from google.api_core.exceptions import GoogleAPICallError, RetryError
    from google.auth.exceptions import GoogleAuthError, TransportError
    from google.protobuf.json_format import ParseError

    try:
        yield
    except GoogleAPICallError as exc:
        raise fault_of(int(exc.code or 500), str(exc.message), what) from exc
    except (TransportError, RetryError) as exc:
        raise no_answer(what, exc) from exc
    except GoogleAuthError as exc:
        raise no_credentials(exc) from exc
    except ParseError as exc:
        raise unreadable(what, in_short(exc)) from exc
    except OSError as exc:  # those of `requests` are
        raise no_answer(what, exc) from exc


def _as_json(answer: Any) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict

    if answer is None:
        return {}
    if hasattr(answer, "operation"):  # a long-running operation
        return {"name": answer.operation.name}
    if hasattr(answer, "raw_page"):
        answer = answer.raw_page
    message = answer
    for page in getattr(answer, "pages", ()):
        message = page
        break
    document: dict[str, Any] = MessageToDict(type(message).pb(message) if hasattr(type(message), "pb") else message)
    return document
