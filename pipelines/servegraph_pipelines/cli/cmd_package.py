"""`servegraph package SOURCE MODEL OUT --predictor module:Class`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from servegraph.package_routine.package import Packaged, PackageRequest, package
from servegraph.package_routine.requirements import Platform
from servegraph_pipelines.cli.local_paths import FILE, LocalPath
from servegraph_pipelines.cli.outcome import echo, print_json
from servegraph_pipelines.cli.target_options import show_warnings


@click.command("package")
@click.argument("source", type=LocalPath(exists=True))
@click.argument("model", type=LocalPath())
@click.argument("out", type=LocalPath())
@click.option("--predictor", required=True, metavar="MODULE:CLASS", help="The class in SOURCE that answers requests.")
@click.option("--requirements", type=FILE, help="Packages that it needs, each pinned: name==version.")
@click.option(
    "--artifacts",
    type=LocalPath(exists=True, file_okay=False),
    help="Directory of further files that `load` finds beside the model.",
)
@click.option("--samples", type=FILE, help="Requests to try and record, a JSON body a line.")
@click.option("--version", default="0.1.0", show_default=True, help="Version of the package.")
@click.option("--python-version", metavar="X.Y", help="Python that wheels are for.  [default: this one]")
@click.option("--platform", metavar="TAG", help="Platform that wheels are for, like manylinux_2_28_x86_64.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    source: Path,
    model: Path,
    out: Path,
    predictor: str,
    requirements: Path | None,
    artifacts: Path | None,
    samples: Path | None,
    version: str,
    python_version: str | None,
    platform: str | None,
    as_json: bool,
) -> int:
    """Package the Python modules in SOURCE with the SavedModel MODEL into OUT, which `servegraph deploy` takes.

    The class may be one for the Vertex SDK (load, preprocess, predict, postprocess), for the legacy AI Platform
    (from_path, predict), or derive from servegraph.serve.saved_model_predictor.SavedModelPredictor. It is built as a
    wheel and a source distribution, loaded by the server that will serve it, and asked the sample requests; its answers
    are recorded for the deploy to compare with. Its code runs here: package only what you trust.
    """
    request = PackageRequest(
        source=source,
        model=model,
        out=out,
        predictor=predictor,
        requirements=requirements,
        artifacts=artifacts,
        samples=samples,
        version=version,
        platform=Platform(python_version, platform),
    )
    done = package(request, _tell)
    show_warnings(done.warnings)
    if as_json:
        print_json(done.to_json())
    else:
        _show(done)
    return 0


def _tell(step: str) -> None:
    for line in step.splitlines():  # the last lines of a server's log are several
        echo(f"  {line}", err=True)


def _show(done: Packaged) -> None:
    from servegraph.machines.sizes import format_size

    echo(f"{done.out}: {done.routine.predictor}, {format_size(done.size_bytes)}")
    for answer in done.answers:
        echo(f"  {json.dumps(answer['request'])}")
        echo(f"  -> {json.dumps(answer['response'])}")
    echo(f"  deploy it: servegraph deploy {done.out} --root ROOT --name NAME --trust-code")
