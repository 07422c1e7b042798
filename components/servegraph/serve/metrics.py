"""Metrics for Prometheus: what was answered, how fast, and what waits."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from servegraph.serve.http import Request, Response
from servegraph.serve.repository import Repository

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_STATES = ("LOADING", "AVAILABLE", "END")


class Metrics:
    """Counts of answers, and the state of models and lines at the moment they are asked for.

    Counted in plain numbers and made into the library's metrics when they are read, both in the thread of the event
    loop: its own counters, with a lock each, took two to four times as long for each answer.
    """

    def __init__(self, repository: Repository) -> None:
        """Keep a registry of their own, so that several servers can live in a process."""
        self._registry = CollectorRegistry()
        self._knows = repository.has
        self._answers = _Answers()
        self._registry.register(self._answers)
        self._registry.register(_Models(repository))
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def observe(self, request: Request, response: Response, seconds: float, _client: str) -> None:
        """Count one answer."""
        route = response.route
        # A name that is no model is not a label: who asks could make up any number of them.
        if route is None or response.status == 404 or (route.name is not None and not self._knows(route.name)):
            key = ("", "none", response.status)
        else:
            key = (route.name or "", route.kind, response.status)
        answers = self._answers
        counts = answers.counts.get(key)
        if counts is None:
            counts = answers.counts[key] = [0] * (len(_SECONDS) + 1)
            answers.seconds[key] = 0.0
        counts[bisect_left(_SECONDS, seconds)] += 1
        answers.seconds[key] += seconds
        answers.received_bytes += len(request.body)
        answers.sent_bytes += len(response.body)

    def text(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        return bytes(generate_latest(self._registry))


class _Answers(Collector):
    """By model, method and status: how many answers took how long, one count for each bucket and one for all above."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str, int], list[int]] = {}
        self.seconds: dict[tuple[str, str, int], float] = {}
        self.received_bytes = 0
        self.sent_bytes = 0

    def collect(self) -> list[Metric]:
        answers = CounterMetricFamily("servegraph_requests", "Answered requests.", labels=("model", "method", "code"))
        times = HistogramMetricFamily(
            "servegraph_request_seconds", "From the last byte of a request to its answer.", labels=("model", "method")
        )
        bodies = CounterMetricFamily("servegraph_body_bytes", "Bytes of bodies.", labels=("direction",))
        together: dict[tuple[str, str], tuple[list[int], float]] = {}
        for (model, method, status), counts in self.counts.items():
            answers.add_metric((model, method, str(status)), sum(counts))
            others, seconds = together.get((model, method), ([0] * len(counts), 0.0))
            summed = [one + other for one, other in zip(counts, others, strict=True)]
            together[model, method] = (summed, seconds + self.seconds[model, method, status])
        for labels, (counts, seconds) in together.items():
            bounds = [*map(floatToGoString, _SECONDS), "+Inf"]
            times.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), seconds)
        bodies.add_metric(("received",), self.received_bytes)
        bodies.add_metric(("sent",), self.sent_bytes)
        return [answers, times, bodies]


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
