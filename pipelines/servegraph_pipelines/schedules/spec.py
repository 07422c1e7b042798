"""The file that declares schedules, read and checked."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import yaml

from servegraph.errors import InputError
from servegraph.yaml_problem import yaml_problem
from servegraph_pipelines import flows, foresight, parameters, resources
from servegraph_pipelines.engines import EnginePlace
from servegraph_pipelines.engines.runs import RunOptions, RunRequest
from servegraph_pipelines.images import ImageChoice, read_lock
from servegraph_pipelines.naming import filled_in
from servegraph_pipelines.run import PLACES
from servegraph_pipelines.schedules import cron
from servegraph_pipelines.schedules.cron import Cron
from servegraph_pipelines.schedules.time_zones import in_zone
from servegraph_pipelines.specification import Specification
from servegraph_pipelines.submit import Choices

Where = Literal["vertex", "kfp", "local"]
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_OF_A_MACHINE = ("localtime", "posixrules")  # files among the time zones that name none


@dataclass(frozen=True)
class Timing:
    """When a schedule runs, and how many of its runs at once."""

    cron: Cron
    time_zone: str = "UTC"
    concurrency: int = 1
    catch_up: bool = False  # whether runs that were missed are made up for


@dataclass(frozen=True)
class OnFailure:
    """What happens when runs fail."""

    pause_after: int | None = None  # failures in a row
    notify: tuple[str, ...] = ()  # a command, which gets SERVEGRAPH_SCHEDULE, _STATUS and _ERROR


@dataclass(frozen=True)
class Schedule:
    """One schedule as declared. `paused` None leaves that as it is."""

    name: str
    engine: Where
    timing: Timing
    make_request: Callable[[], RunRequest]
    place: EnginePlace
    folder: Path  # of the file, where relative paths in it start
    directory: Path | None = None  # local: where runs and their records go
    timer: Literal["systemd", "cron"] | None = None  # local: what starts the runs
    on_failure: OnFailure = field(default_factory=OnFailure)
    paused: bool | None = None

    @functools.cached_property
    def request(self) -> RunRequest:
        """What it runs, made when it is first asked for: to list, pause or remove needs no images and no data.

        Raises:
            InputError: the image lock cannot be read or lacks an image, or resources are of no step.
            ServegraphError: data or trainer of a run on this machine are not there.
        """
        return self.make_request()

    def prepare(self) -> None:
        """Make what it runs, so that what is wrong with it is refused now. Raises what `request` does."""
        _ = self.request


# What a schedule in the file may have, and what is there must be of these types.
_KEYS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "cron": (str,),
    "time_zone": (str,),
    "engine": (str,),
    "pipeline": (str,),
    "parameters": (dict,),
    "place": (dict,),
    "concurrency": (int,),
    "catch_up": (bool,),
    "paused": (bool,),
    "pause_after_failures": (int,),
    "notify": (list,),
    "images": (dict,),
    "resources": (dict,),
    "caching": (str,),
    "labels": (dict,),
    "service_account": (str,),
    "network": (str,),
    "encryption_key": (str,),
    "fail_fast": (bool,),
}
_KINDS: dict[type, str] = {
    str: "a text, in quotes",
    dict: "a mapping",
    int: "a whole number",
    bool: "true or false",
    list: "a list",
}
# Of what is in a mapping; what the others have is checked where it is used. A tag 1.10 would be 1.1 as a number.
_INNER: dict[str, tuple[type, ...]] = {"place": (str, int), "images": (str,)}
_REQUIRED = ("name", "cron", "engine", "pipeline")


def read(path: Path) -> list[Schedule]:
    """Return the schedules of a file: a list under `schedules`, or one mapping.

    Raises:
        InputError: it is no such file (code `BAD_SCHEDULE`), or a part of it cannot be used.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as exc:
        raise InputError(
            f"The schedules {path} are no YAML: {yaml_problem(exc)}.",
            code="BAD_SCHEDULE",
            fix="Mend the file where it says.",
        ) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(
            f"The schedules {path} cannot be read: {exc}.",
            code="BAD_SCHEDULE",
            fix="Give a file of UTF-8 text that can be read.",
        ) from exc
    rows = document.get("schedules", [document]) if isinstance(document, dict) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} declares no schedules.", code="BAD_SCHEDULE", fix="Write a list under `schedules:`.")
    found = [_schedule(row, path.parent) for row in rows]
    names = [schedule.name for schedule in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{path} declares {twice} twice.", code="BAD_SCHEDULE", fix="Give each a name of its own.")
    return found


def _schedule(row: dict[str, Any], folder: Path) -> Schedule:
    _check_keys(row)
    name, engine = row["name"], row["engine"]
    compiled = flows.load(_reference(row["pipeline"], folder))
    where = {"filled_in": PLACES} if engine == "local" else {"engine": engine}
    values = parameters.check(compiled, row.get("parameters", {}), **where)
    place = row.get("place", {})
    directory = place.get("directory")
    schedule = Schedule(
        name=name,
        engine=engine,
        timing=_timing(row),
        make_request=functools.partial(_request, row, folder, compiled, values),
        place=_place(place, name, folder),
        folder=folder.absolute(),
        directory=(folder / Path(str(directory)).expanduser()).absolute() if directory else None,
        timer=place.get("scheduler"),
        on_failure=OnFailure(row.get("pause_after_failures"), tuple(map(str, row.get("notify", [])))),
        paused=row.get("paused"),
    )
    _check_engine(schedule)
    _check_images(row)
    return schedule


def _request(row: dict[str, Any], folder: Path, compiled: Specification, values: dict[str, Any]) -> RunRequest:
    """Return what is run: where that is on this machine, with paths in full, for a timer has another directory."""
    if row["engine"] == "local":
        values = foresight.in_full(compiled, values, PLACES, folder)
        foresight.check_files(compiled, values)
    values = filled_in(compiled, values)
    options = RunOptions(
        labels={key: str(value) for key, value in row.get("labels", {}).items()},
        service_account=row.get("service_account"),
        network=row.get("network"),
        encryption_key=row.get("encryption_key"),
        fail_fast=row.get("fail_fast", False),
    )
    specification = _choices(row, folder).apply(compiled, _limits_of(row["engine"]), values)
    return RunRequest(row["name"], specification, values, options)


def _timing(row: Mapping[str, Any]) -> Timing:
    """Return when the schedule runs. Recurring runs have no time zone of their own: they get the line in that of the
    installation (`cronScheduleTimezone` of its configuration)."""
    line, zone = cron.parse(row["cron"]), _zone(row.get("time_zone", "UTC"))
    given = row.get("place", {}).get("cron_time_zone")
    if given is not None and row["engine"] != "kfp":
        what = f"{row['name']}: only Kubeflow Pipelines has a cron_time_zone."
        raise InputError(what, code="NOT_FOR_ENGINE", fix="Leave it out.")
    if row["engine"] == "kfp":
        there = _zone(given or "UTC")
        line, zone = in_zone(line, zone, there), there
    return Timing(line, zone, row.get("concurrency", 1), row.get("catch_up", False))


def _check_keys(row: Mapping[str, Any]) -> None:
    name = row.get("name")
    for key, value in row.items():
        kinds = _KEYS.get(key)
        if kinds is None:
            fix = f"A schedule has {', '.join(_KEYS)}."
            raise InputError(f"The schedule {name!r} has an unknown key {key!r}.", code="BAD_SCHEDULE", fix=fix)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            fix = f"Write {' or '.join(_KINDS[kind] for kind in kinds)}."
            raise InputError(f"{key} of the schedule {name!r} is {value!r}.", code="BAD_SCHEDULE", fix=fix)
        if isinstance(value, dict):
            _check_inner(f"{key} of the schedule {name!r}", value, _INNER.get(key))
    for key in _REQUIRED:
        if key not in row:
            raise InputError(f"The schedule {name!r} has no {key}.", code="BAD_SCHEDULE", fix=f"Write `{key}: …`.")
    if not _NAME.fullmatch(row["name"]):
        fix = "Write lower-case letters, digits and -, a letter first."
        raise InputError(f"{name!r} is no name of a schedule.", code="BAD_SCHEDULE", fix=fix)
    if row["engine"] not in ("vertex", "kfp", "local"):
        raise InputError(f"There is no engine {row['engine']!r}.", code="BAD_SCHEDULE", fix="vertex, kfp or local.")
    if row.get("caching", "off") not in ("auto", "as-compiled", "off"):
        what = f"caching of {name} is {row['caching']!r}."
        raise InputError(what, code="BAD_SCHEDULE", fix="auto, as-compiled or off.")
    for key in ("concurrency", "pause_after_failures"):
        if row.get(key, 1) < 1:
            raise InputError(
                f"{key} of {name} is {row[key]}; at least 1.",
                code="BAD_SCHEDULE",
                fix="Write 1 or more, or leave it out.",
            )


def _check_inner(what: str, values: Mapping[Any, Any], kinds: tuple[type, ...] | None) -> None:
    for key, value in values.items():
        if not isinstance(key, str):
            fix = f"Write {_KINDS[str]}."
            raise InputError(f"{what} has the key {key!r}.", code="BAD_SCHEDULE", fix=fix)
        if kinds is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
            fix = f"Write {_KINDS[str]}."
            raise InputError(f"{key} in {what} is {value!r}.", code="BAD_SCHEDULE", fix=fix)


def _check_engine(schedule: Schedule) -> None:
    """Refuse what the engine cannot do, before anything is sent."""
    name, on_failure = schedule.name, schedule.on_failure
    if schedule.engine != "local" and on_failure.notify and on_failure.pause_after is None:
        raise InputError(
            f"{schedule.name}: {schedule.engine} tells of no failures by itself.",
            code="NOT_FOR_ENGINE",
            fix="Give pause_after_failures as well: `servegraph schedule check` pauses then, and notifies.",
        )
    if schedule.engine == "local" and schedule.timing.concurrency != 1:
        raise InputError(f"{name}: on this machine one run at a time.", code="NOT_FOR_ENGINE", fix="concurrency: 1")
    if schedule.engine == "kfp" and schedule.timing.concurrency > 10:
        raise InputError(
            f"{name}: Kubeflow Pipelines runs at most 10 at once.",
            code="NOT_FOR_ENGINE",
            fix="Write concurrency: 10 or less.",
        )
    if schedule.engine != "kfp":
        schedule.timing.cron.five()


def _reference(text: str, folder: Path) -> str:
    return str(folder / text) if text.endswith((".yaml", ".yml", ".json")) else text


def _limits_of(engine: Where) -> resources.EngineName:
    return "vertex" if engine == "vertex" else "kfp"


def _check_images(row: Mapping[str, Any]) -> None:
    images = row.get("images", {})
    what = f"images of {row['name']} are {images!r}."
    if not set(images) <= {"registry", "tag", "lock"}:
        raise InputError(what, code="BAD_SCHEDULE", fix="It has registry, tag and lock.")
    # To YAML a tag like 1.10 is the number 1.1.
    if not all(value is None or isinstance(value, str) for value in images.values()):
        raise InputError(what, code="BAD_SCHEDULE", fix="Write each as text, a number in quotes.")


def _choices(row: Mapping[str, Any], folder: Path) -> Choices:
    images = dict(row.get("images", {}))
    lock = images.pop("lock", None)
    choice = ImageChoice(lock=read_lock(folder / str(lock)) if lock else {}, **images)
    caching = row.get("caching", "auto")
    return Choices(choice, resources.from_mapping(row.get("resources", {})), caching)


def _zone(zone: Any) -> str:
    fix = "Write one like Europe/Berlin or UTC."
    if zone in _OF_A_MACHINE:
        raise InputError(f"{zone!r} is another time zone on every machine.", code="BAD_SCHEDULE", fix=fix)
    try:
        ZoneInfo(str(zone))
    except (ValueError, OSError, KeyError) as exc:
        raise InputError(f"{zone!r} is no time zone.", code="BAD_SCHEDULE", fix=fix) from exc
    return str(zone)


def _place(row: Mapping[str, Any], name: str, folder: Path) -> EnginePlace:
    known = {item.name for item in dataclasses.fields(EnginePlace)}
    if unknown := sorted(set(row) - known - {"directory", "scheduler", "cron_time_zone"}):
        fix = f"It has {', '.join(sorted(known))}, cron_time_zone, directory and scheduler."
        raise InputError(f"The place of {name} has an unknown {unknown[0]!r}.", code="BAD_SCHEDULE", fix=fix)
    if row.get("scheduler") not in (None, "systemd", "cron"):
        raise InputError(f"{name} has the scheduler {row['scheduler']!r}.", code="BAD_SCHEDULE", fix="systemd or cron.")
    values: dict[str, Any] = {key: str(value) for key, value in row.items() if key in known}
    if "token_file" in values:
        values["token_file"] = folder / Path(values["token_file"]).expanduser()
    return EnginePlace(**values)
