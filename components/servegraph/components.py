"""The public components, for use in any pipeline:

from servegraph.components import optimize, inspect_graph
"""

from servegraph.check_data.component import check_data
from servegraph.choose_machine.component import choose_machine
from servegraph.deploy_version.component import deploy_version
from servegraph.digest_data.component import digest_data
from servegraph.evaluate.component import evaluate
from servegraph.export_serving_graph.component import export_serving_graph
from servegraph.inspect_graph.component import inspect_graph
from servegraph.live_version.component import live_version
from servegraph.measure.component import measure
from servegraph.optimize.component import optimize
from servegraph.record_training.component import record_training
from servegraph.train.component import train

__all__ = [
    "check_data",
    "choose_machine",
    "deploy_version",
    "digest_data",
    "evaluate",
    "export_serving_graph",
    "inspect_graph",
    "live_version",
    "measure",
    "optimize",
    "record_training",
    "train",
]
