"""The scheduler of a declared schedule: one row an engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from servegraph_pipelines.engines import open_engine
from servegraph_pipelines.schedules.converge import Scheduler
from servegraph_pipelines.schedules.spec import Schedule


@contextlib.contextmanager
def open_scheduler(schedule: Schedule) -> Iterator[Scheduler]:
    """Yield what keeps the schedule; nothing is sent yet. Raises `InputError` (code `NO_PLACE`)."""
    if schedule.engine == "local":
        from servegraph_pipelines.schedules.local import LocalSchedules

        yield LocalSchedules(schedule.directory, schedule.timer)
        return
    with contextlib.closing(open_engine(schedule.engine, schedule.place)) as engine:
        if schedule.engine == "vertex":
            from servegraph_pipelines.engines.vertex import VertexEngine
            from servegraph_pipelines.schedules.vertex import VertexSchedules

            assert isinstance(engine, VertexEngine)
            yield VertexSchedules(engine)
        else:
            from servegraph_pipelines.engines.kubeflow import KubeflowEngine
            from servegraph_pipelines.schedules.kubeflow import KubeflowSchedules

            assert isinstance(engine, KubeflowEngine)
            yield KubeflowSchedules(engine)
