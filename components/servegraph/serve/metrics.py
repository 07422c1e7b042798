"""Metrics for Prometheus: what was answered, how fast, and what waits."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from servegraph.serve.http import Request, Response
from servegraph.serve.repository import Repository

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_STATES = ("LOADING", "AVAILABLE", "END")


class Metrics:
    """Counters of answers, and the state of models and lines at the moment they are asked for."""

    def __init__(self, repository: Repository) -> None:
        """Keep a registry of their own, so that several servers can live in a process."""
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "servegraph_requests", "Answered requests.", ("model", "method", "code"), registry=self._registry
        )
        self._seconds = Histogram(
            "servegraph_request_seconds",
            "From the last byte of a request to its answer.",
            ("model", "method"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._bytes = Counter("servegraph_body_bytes", "Bytes of bodies.", ("direction",), registry=self._registry)
        self._received = self._bytes.labels("received")
        self._sent = self._bytes.labels("sent")
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._registry.register(_Models(repository))
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def observe(self, request: Request, response: Response, seconds: float, _client: str) -> None:
        """Count one answer."""
        route = response.route
        # A name that is no model is not a label: who asks could make up any number of them.
        known = route is not None and response.status != 404
        key = (route.name or "", route.kind, response.status) if known and route else ("", "none", response.status)
        found = self._known.get(key)
        if found is None:
            model, method, status = key
            found = (self._requests.labels(model, method, str(status)), self._seconds.labels(model, method))
            self._known[key] = found
        found[0].inc()
        found[1].observe(seconds)
        self._received.inc(len(request.body))
        self._sent.inc(len(response.body))

    def text(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        return bytes(generate_latest(self._registry))


class _Models(Collector):
    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def collect(self) -> list[GaugeMetricFamily]:
        state = GaugeMetricFamily("servegraph_version_state", "1 for the state it is in.", labels=_LABELS)
        waiting = GaugeMetricFamily("servegraph_waiting_requests", "Requests in line.", labels=_LABELS[:2])
        running = GaugeMetricFamily("servegraph_running_requests", "Requests in a call.", labels=_LABELS[:2])
        for name, number, version in self._repository.versions():
            for one in _STATES:
                state.add_metric((name, str(number), one), float(one == version.state))
            if version.model is not None:
                in_line, in_call = version.model.load
                waiting.add_metric((name, str(number)), in_line)
                running.add_metric((name, str(number)), in_call)
        return [state, waiting, running]


_LABELS = ("model", "version", "state")
