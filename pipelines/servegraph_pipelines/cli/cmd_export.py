"""`servegraph export SOURCE OUT`: a serving SavedModel from whatever holds a model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from servegraph.quiet_tensorflow import import_tensorflow_quietly
from servegraph.storage.data_files import require_match
from servegraph_pipelines.cli.local_paths import LocalPath
from servegraph_pipelines.cli.outcome import echo, print_json

if TYPE_CHECKING:
    from servegraph.export_serving_graph.signature_choice import Wanted


@click.command("export")
@click.argument("source")
@click.argument("out", type=LocalPath())
@click.option("--schema", type=LocalPath(), help="Schema of the data; names the classes.")
@click.option("--samples", help="Records as JSON lines to compare answers on; made up if not given.")
@click.option(
    "--trainer",
    help="Module or .py file whose import registers a Keras model's own layers; for an Estimator "
    "estimator:file.py:function, which makes it.",
)
@click.option("--formats", default="", metavar="json,csv,example", help="What requests look like; by the schema.")
@click.option("--serving-input-fn", metavar="FILE.py:FUNCTION", help="Serving input function of an Estimator.")
@click.option("--trust-code", is_flag=True, help="Let Python code inside the Keras file (Lambda layers) run.")
@click.option(
    "--signature",
    "signatures",
    multiple=True,
    metavar="NAME[=OLD]",
    help="Keep this signature, under a new name; for a tf.Module the function that serves. May be repeated.",
)
@click.option("--output", "outputs", multiple=True, metavar="NAME=TENSOR", help="Output of a TF1 graph; repeatable.")
@click.option("--input", "inputs", multiple=True, metavar="NAME=TENSOR", help="Input of a TF1 graph; repeatable.")
@click.option("--constant", "constants", multiple=True, metavar="NAME=VALUE", help="Value of a TF1 placeholder.")
@click.option("--tags", default="", metavar="TAG,TAG", help="Which of several MetaGraphs to export.")
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="SIGNATURE=METHOD",
    help="predict, classify or regress, where the outputs allow it; repeatable.",
)
@click.option("--names-from", metavar="SAVEDMODEL", help="Keep the names of inputs and outputs of an older version.")
@click.option("--rename-input", "new_inputs", multiple=True, metavar="NEW=OLD", help="Rename an input; repeatable.")
@click.option("--rename-output", "new_outputs", multiple=True, metavar="NEW=OLD", help="Rename an output; repeatable.")
@click.option(
    "--gpu-graph",
    "gpu_graph",
    default="",
    metavar="PRECISION",
    help="Add a MetaGraph for GPUs over the same variables, tags serve and gpu: float32, bfloat16 or float16.",
)
@click.option("--write-tags", default="", metavar="TAG,TAG", help="Tags of the exported MetaGraph; serve if not given.")
@click.option("--warmup", metavar="FILE.jsonl", help="Records to store as warmup requests of the default signature.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    source: str,
    out: Path,
    schema: Path | None,
    samples: str | None,
    trainer: str | None,
    trust_code: bool,
    as_json: bool,
    **names: Any,
) -> None:
    """Write the serving graph of SOURCE to the new directory OUT.

    SOURCE is a .keras or .h5 file, a directory with one, a checkpoint directory that training left behind, a SavedModel
    of TensorFlow 1 or 2, a TF1 checkpoint with its graph (.meta), the model_dir of an Estimator, or file.py:function
    that returns a Keras model or a tf.Module. What it is is found out.
    """
    require_match(samples, names["warmup"])  # before TensorFlow, whose import takes seconds
    import_tensorflow_quietly()
    from servegraph.estimator import estimator_function
    from servegraph.export_serving_graph.export import export
    from servegraph.export_serving_graph.signature_choice import Requests
    from servegraph.machines.sizes import format_size
    from servegraph.trained.trainer import import_source

    if trainer and not estimator_function(trainer):
        import_source(trainer)
    requests = Requests(
        formats=tuple(name for name in names["formats"].split(",") if name),
        serving_input_fn=names["serving_input_fn"],
        trainer=trainer,
        warmup=names["warmup"],
    )
    exported = export(
        source,
        out,
        schema_file=schema,
        samples=samples,
        trust_code=trust_code,
        wanted=_wanted(names),
        requests=requests,
    )
    if as_json:
        print_json({"path": str(out), **dataclasses.asdict(exported)})
        return
    echo(f"{out}: {format_size(exported.size_bytes)}, serving-only")
    if len(exported.tag_sets) > 1:
        echo(f"  MetaGraphs  {' '.join('{' + ', '.join(tags) + '}' for tags in exported.tag_sets)}")
    echo(f"  signatures  {', '.join(exported.signatures)}")
    echo(f"  inputs      {', '.join(exported.inputs)}")
    echo(f"  outputs     {', '.join(exported.outputs)}")
    echo(f"  proof       {exported.proof_rows} answers, largest difference {exported.max_abs_diff:g}")
    for note in exported.notes:
        echo(f"  note        {note}")


def _wanted(names: dict[str, Any]) -> Wanted:
    """Return what the options say of signatures, names and MetaGraphs."""
    from servegraph.export_serving_graph.interface import WantedNames, parse_methods
    from servegraph.export_serving_graph.signature_choice import Wanted, pairs, precision

    return Wanted(
        signatures=pairs(names["signatures"], "--signature"),
        inputs=pairs(names["inputs"], "--input"),
        outputs=pairs(names["outputs"], "--output"),
        constants=pairs(names["constants"], "--constant"),
        tags=tuple(tag for tag in names["tags"].split(",") if tag),
        gpu_graph=precision(names["gpu_graph"]),
        names=WantedNames(
            inputs=pairs(names["new_inputs"], "--rename-input"),
            outputs=pairs(names["new_outputs"], "--rename-output"),
            methods=parse_methods(pairs(names["methods"], "--method")),
            like=names["names_from"],
            tags=tuple(tag for tag in names["write_tags"].split(",") if tag),
        ),
    )
