"""Calls to a Kubernetes API server through the plain kubernetes client: dicts in, dicts out, no generated models."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from servegraph.deploy_version.faults import NotFound, Overtaken, Patience, fault_of, no_answer, unreadable
from servegraph.deploy_version.google_api import is_loopback
from servegraph.errors import DeployRefused, in_short
from servegraph.extras import package_missing
from servegraph.yaml_problem import yaml_problem

GROUP, VERSION, PLURAL = "serving.kserve.io", "v1beta1", "inferenceservices"
CALL_TIMEOUT_S = 60.0


class KserveApi:
    """InferenceServices and config maps of one namespace. `url` is for an emulator."""

    def __init__(
        self,
        namespace: str,
        context: str | None = None,
        url: str | None = None,
        poll_s: float = 5.0,
        patience: Callable[[], Patience] = Patience,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        """Name the place; nothing is imported or sent yet. Without `url` it is as kubectl is configured."""
        self.namespace, self._context, self._url, self.poll_s = namespace, context, url, poll_s
        is_loopback(url)
        self._patience, self._timeout_s = patience, timeout_s

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return an object, or None where there is none; faults are waited out."""
        try:
            return self._patience().again(lambda: self._call("get", kind, name))
        except NotFound:
            return None

    def send(self, verb: str, kind: str, name: str, body: Mapping[str, Any] | None) -> None:
        """Create, replace or delete an object; unknown fields are refused."""
        options = {} if verb == "delete" else {"field_validation": "Strict"}
        try:
            self._call(verb, kind, name, body, **options)
        except NotFound:
            if verb != "delete":
                raise Overtaken(
                    f"{kind} {name} is gone.", fix="Run again; what is done already is found and kept."
                ) from None

    def try_out(self, verb: str, kind: str, name: str, body: Mapping[str, Any]) -> None:
        """Let the server hold an object to the schema it has, and store nothing; faults are waited out."""
        options = {"field_validation": "Strict", "dry_run": "All"}
        with contextlib.suppress(NotFound, Overtaken):  # it has changed since it was looked at: not the schema's matter
            self._patience().again(lambda: self._call(verb, kind, name, body, **options))

    def predict(self, url: str, document: Mapping[str, Any]) -> Any:
        """Return the JSON answer of a predictor at `url`, an address that its status gives."""
        import urllib3

        with urllib3.PoolManager(retries=False) as pool:
            try:
                answer = pool.request(
                    "POST",
                    url,
                    body=json.dumps(document).encode(),
                    headers={"content-type": "application/json"},
                    timeout=self._timeout_s,
                )
            except urllib3.exceptions.HTTPError as exc:
                fix = "Run it where the cluster's addresses are reached, such as in a pipeline on the cluster."
                raise no_answer(url, exc, fix) from exc
            if answer.status != 200:
                raise fault_of(answer.status, answer.data.decode("utf-8", "replace"), url)
            try:
                return json.loads(answer.data)
            except ValueError as exc:
                raise unreadable(url, in_short(exc)) from exc

    def create_custom(self, group: str, version: str, plural: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object of another custom resource; unknown fields are refused. Not tried again."""
        with _faults(f"create of {plural} {self.namespace}/{body['metadata']['name']}"):
            made = self._custom.create_namespaced_custom_object(
                group, version, self.namespace, plural, body, _request_timeout=CALL_TIMEOUT_S, field_validation="Strict"
            )
        return dict(made)

    def close(self) -> None:
        """Close the connections."""
        if "_client" in vars(self):
            self._client.close()

    def _call(
        self, verb: str, kind: str, name: str, body: Mapping[str, Any] | None = None, **options: Any
    ) -> dict[str, Any]:
        arguments = [self.namespace, *([name] if verb != "create" else []), *([] if body is None else [body])]
        with _faults(f"{verb} of {kind} {self.namespace}/{name}"):
            if kind == "InferenceService":
                function = getattr(self._custom, f"{verb}_namespaced_custom_object")
                arguments[1:1] = [PLURAL]
                answer = function(GROUP, VERSION, *arguments, _request_timeout=self._timeout_s, **options)
            else:
                verb = {"get": "read"}.get(verb, verb)
                function = getattr(self._core, f"{verb}_namespaced_config_map")
                if body is None:
                    arguments = [name, self.namespace]
                elif verb == "replace":
                    arguments = [name, self.namespace, body]
                answer = function(*arguments, _request_timeout=self._timeout_s, **options)
                answer = self._client.sanitize_for_serialization(answer)
        return dict(answer)

    @functools.cached_property
    def _custom(self) -> Any:
        from kubernetes.client import CustomObjectsApi

        return CustomObjectsApi(self._client)

    @functools.cached_property
    def _core(self) -> Any:
        from kubernetes.client import CoreV1Api

        return CoreV1Api(self._client)

    @functools.cached_property
    def _client(self) -> Any:
        try:
            from kubernetes import client, config
        except ImportError as exc:
            raise package_missing("kubernetes", "The target kserve") from exc
        settings = client.Configuration()
        if self._url:
            settings.host = self._url
        else:
            try:
                _load(config, settings, self._context)
            except config.ConfigException as exc:
                raise _not_configured(str(exc)) from exc
            if not all(text.isascii() and text.isprintable() for text in settings.api_key.values()):
                raise _not_configured("its token has characters that no token has, such as an end of line.")
        settings.retries = False  # there is one rule for trying again, and it is not the HTTP library's
        return client.ApiClient(settings)


def _load(config: Any, settings: Any, context: str | None) -> None:
    import yaml

    file = os.environ.get("KUBECONFIG") or None  # its own default is of when it was imported
    try:
        config.load_kube_config(file, context=context, client_configuration=settings)
        _trim_tokens(settings)
    except OSError as exc:  # of a token: of other files that it names, the loader itself says which is not there
        raise config.ConfigException(f"{exc.filename or file} cannot be read: {exc.strerror or exc}.") from exc
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as exc:
        # Its loader checks little of what it reads.
        said = f" {yaml_problem(exc)}" if isinstance(exc, yaml.YAMLError) else ""
        raise config.ConfigException(f"the kubeconfig is none.{said}") from exc
    except config.ConfigException as exc:
        try:
            if context:
                raise
            config.load_incluster_config(client_configuration=settings)
        except config.ConfigException:
            raise exc from None  # the one of the kubeconfig says more


def _trim_tokens(settings: Any) -> None:
    """Take what is around a token off, such as the end of line that a file ends in, as kubectl does: always anew.

    The loader sets token and hook again before each request, as the token may have to be renewed.
    """
    renew = settings.refresh_api_key_hook

    def trim(now: Any) -> None:
        if renew is not None:
            renew(now)
        now.api_key = {name: text.strip() for name, text in now.api_key.items()}
        now.refresh_api_key_hook = trim

    trim(settings)


def _not_configured(why: str) -> DeployRefused:
    return DeployRefused(
        f"Kubernetes is not configured: {why}",
        code="NO_CREDENTIALS",
        fix="Set KUBECONFIG, or give --context; within a cluster, run as a service account.",
    )


@contextlib.contextmanager
def _faults(what: str) -> Iterator[None]:
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as exc:
        if not exc.status:  # so it passes on that there is no connection over TLS
            raise no_answer(what, exc) from exc
        raise fault_of(int(exc.status), _message(exc), what) from exc
    except (HTTPError, OSError) as exc:
        raise no_answer(what, exc, "Check that the API server can be reached, then run again.") from exc


def _message(exc: Any) -> str:
    try:
        return str(json.loads(exc.body)["message"])
    except (ValueError, KeyError, TypeError):
        return str(exc.reason)
