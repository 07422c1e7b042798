"""The public components, for use in any pipeline:

from servegraph.components import optimize, inspect_graph
"""

from servegraph.choose_machine.component import choose_machine
from servegraph.deploy_version.component import deploy_version
from servegraph.export_serving_graph.component import export_serving_graph
from servegraph.inspect_graph.component import inspect_graph
from servegraph.measure.component import measure
from servegraph.optimize.component import optimize
from servegraph.train.component import train

__all__ = [
    "choose_machine",
    "deploy_version",
    "export_serving_graph",
    "inspect_graph",
    "measure",
    "optimize",
    "train",
]
