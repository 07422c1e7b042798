"""`servegraph schedule apply|diff|list|check|pause|resume|delete`: schedules as one file declares them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from servegraph_pipelines.cli.local_paths import FILE
from servegraph_pipelines.cli.outcome import echo, print_json

_MARKS = {"created": "+", "updated": "~", "replaced": "±", "deleted": "-", "unchanged": "=", "absent": "="}
_FILE = click.argument("file", type=FILE)
_NAMES = click.argument("names", nargs=-1)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.group("schedule")
def command() -> None:
    """Run pipelines again and again: schedules on Vertex AI, on Kubeflow Pipelines or here, as FILE declares them.

    NAMES leave the others out.
    """


@command.command("apply")
@_FILE
@_NAMES
@_JSON
def apply_command(file: Path, names: tuple[str, ...], as_json: bool) -> int:
    """Make what is there equal to FILE: made, changed, or made anew where pipeline or parameters differ."""
    from servegraph_pipelines.schedules.converge import apply

    return _each(file, names, apply, as_json, runs=True)


@command.command("diff")
@_FILE
@_NAMES
@_JSON
def diff_command(file: Path, names: tuple[str, ...], as_json: bool) -> int:
    """Show what apply would do; nothing is changed. Exits 1 where something differs."""
    from servegraph_pipelines.schedules.converge import plan

    changes = _changes(file, names, plan, runs=True)
    _show(changes, as_json)
    return int(any(change.outcome != "unchanged" for change in changes))


@command.command("list")
@_FILE
@_NAMES
@_JSON
def list_command(file: Path, names: tuple[str, ...], as_json: bool) -> int:
    """List what is there of the schedules in FILE."""

    def look(scheduler: Any, schedule: Any) -> Any:
        found = scheduler.find(schedule.name)
        return [
            {
                "name": one.name,
                "engine": schedule.engine,
                "id": one.id,
                "cron": one.timing.get("cron", ""),
                "paused": one.paused,
                "next_run": one.next_run,
            }
            for one in found
        ]

    rows = [row for found in _changes(file, names, look) for row in found]
    if as_json:
        print_json({"schedules": rows})
    for row in () if as_json else rows:
        echo(f"{row['name']:<30} {row['engine']:<7} {'paused' if row['paused'] else 'active':<7} {row['cron']}")
    return 0


@command.command("pause")
@_FILE
@click.argument("name")
@_JSON
def pause_command(file: Path, name: str, as_json: bool) -> int:
    """Start no further runs of NAME; apply leaves it paused."""
    return _switch(file, name, as_json, paused=True)


@command.command("resume")
@_FILE
@click.argument("name")
@_JSON
def resume_command(file: Path, name: str, as_json: bool) -> int:
    """Start runs of NAME again, from now on; those missed only where it is declared with catch_up."""
    return _switch(file, name, as_json, paused=False)


@command.command("delete")
@_FILE
@click.argument("name")
@_JSON
def delete_command(file: Path, name: str, as_json: bool) -> int:
    """Remove NAME; its runs and what they deployed stay."""
    from servegraph_pipelines.schedules.converge import delete

    return _each(file, (name,), delete, as_json)


@command.command("check")
@_FILE
@_NAMES
@_JSON
def check_command(file: Path, names: tuple[str, ...], as_json: bool) -> int:
    """Pause what has failed as often as FILE allows, and notify. Exits 1 where something was paused."""
    from servegraph_pipelines.schedules.failures import check

    changes = _changes(file, names, check)
    _show(changes, as_json)
    return int(any(change.outcome == "paused" for change in changes))


def _switch(file: Path, name: str, as_json: bool, *, paused: bool) -> int:
    from servegraph_pipelines.schedules.converge import set_paused

    return _each(file, (name,), lambda scheduler, one: set_paused(scheduler, one, paused=paused), as_json)


def _each(file: Path, names: tuple[str, ...], act: Any, as_json: bool, *, runs: bool = False) -> int:
    _show(_changes(file, names, act, runs=runs), as_json)
    return 0


def _changes(file: Path, names: tuple[str, ...], act: Any, *, runs: bool = False) -> list[Any]:
    """Return what `act` did with each schedule. With `runs` it needs what they run: what is wrong with that of any is
    refused before the first is touched."""
    from servegraph.errors import InputError
    from servegraph.interrupt import terminated_as_interrupted
    from servegraph_pipelines.schedules.converge import require_possible
    from servegraph_pipelines.schedules.schedulers import open_scheduler
    from servegraph_pipelines.schedules.spec import read

    declared = read(file)
    if unknown := set(names) - {schedule.name for schedule in declared}:
        fix = f"It declares {', '.join(schedule.name for schedule in declared)}."
        raise InputError(f"{file} declares no schedule {sorted(unknown)[0]}.", code="NO_SCHEDULE", fix=fix)
    chosen = [schedule for schedule in declared if not names or schedule.name in names]
    found = []
    for schedule in chosen if runs else ():
        schedule.prepare()
        with open_scheduler(schedule) as scheduler:
            require_possible(scheduler, schedule)
    for schedule in chosen:
        with terminated_as_interrupted(), open_scheduler(schedule) as scheduler:
            found.append(act(scheduler, schedule))
    return found


def _show(changes: list[Any], as_json: bool) -> None:
    if as_json:
        print_json({"schedules": [change.to_json() for change in changes]})
        return
    for change in changes:
        echo(f"{_MARKS.get(change.outcome, '*')} {change.name} on {change.engine}: {change.outcome}")
        for line in change.why:
            echo(f"    {line}")
