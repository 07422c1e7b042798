"""Everything that can be wrong with a SavedModel: one table, one row a rule."""

from __future__ import annotations

from typing import Literal, NamedTuple

from servegraph.machines import quota

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


class Rule(NamedTuple):
    """One row: its code, how bad it is, what it means, how to mend it, the requirement that it stands for."""

    code: str
    severity: Severity
    meaning: str
    fix: str
    requirement: str


_AGAIN = "Copy the whole directory again from where it was written, or export the model again."
_OPTIMIZE = "Run servegraph optimize on it."
_EXPORT = "Export it with servegraph export, which writes a serving graph only."
_RESTORE = "Run servegraph optimize on it, which restores them too; or export with model.export() or servegraph export."
_BATCH = "Export with None as the first dimension of every input and output."

_WHOLE = (
    Rule("GRAPH_CORRUPT", "error", "The graph file cannot be read.", _AGAIN, "R3"),
    Rule(
        "BAD_DEFAULT",
        "error",
        "What a server takes for an input that a request leaves out is no value of that input.",
        "Export the model again, with a default that is a value of its input.",
        "R3",
    ),
    Rule("GRAPH_INCONSISTENT", "error", "The graph names nodes or functions that it does not have.", _AGAIN, "R3"),
    Rule(
        "LFS_POINTER",
        "error",
        "A file is not there, only a pointer of Git LFS to it.",
        "Run git lfs pull where the repository was cloned.",
        "R3",
    ),
    Rule(
        "GRAPH_TOO_LARGE",
        "error",
        "The graph file has 2 GB or more, which no TensorFlow can load.",
        "Keep the weights in variables instead of constants.",
        "R3",
    ),
    Rule(
        "CHUNKED_GRAPH",
        "error",
        "The graph is split into chunks, which servers do not read.",
        "Export without experimental_image_format.",
        "R3",
    ),
    Rule("NO_VARIABLES", "error", "The graph has variables, the directory has no index of them.", _AGAIN, "R3"),
    Rule("INDEX_CORRUPT", "error", "The index of the variables cannot be read.", _AGAIN, "R3"),
    Rule("MISSING_SHARD", "error", "A data file of the variables is missing.", _AGAIN, "R3"),
    Rule("TRUNCATED_SHARD", "error", "A data file of the variables is too short.", _AGAIN, "R3"),
    Rule("BAD_ENTRY_SIZE", "error", "A tensor's size does not fit its shape and type.", _AGAIN, "R3"),
    Rule("CRC_MISMATCH", "error", "A tensor's bytes changed since it was written.", _AGAIN, "R3"),
    Rule(
        "MISSING_TENSOR",
        "error",
        "Loading asks the variables for a tensor that they do not have.",
        "Put the graph and the variables of the same export together.",
        "R3",
    ),
    Rule(
        "MISMATCHED_TENSOR",
        "error",
        "Loading asks for a tensor of another type or shape than it is stored with.",
        "Put the graph and the variables of the same export together.",
        "R3",
    ),
    Rule("MISSING_ASSET", "error", "A file that the graph reads from assets/ is missing.", _AGAIN, "R3"),
    Rule(
        "PATH_ESCAPES",
        "error",
        "An asset's name leads out of the directory.",
        "Do not load it: export it again from a source that you trust.",
        "R3",
    ),
    Rule(
        "LINK_OUTSIDE",
        "error",
        "A link leads out of the directory, or to no file: what it points to is not copied.",
        "Copy the directory with cp -RL, which puts files in the place of links.",
        "R3",
    ),
    Rule("LINK", "info", "A file is a link.", "Copy the directory with cp -RL before it is uploaded.", "R3"),
    Rule(
        "EXTERNAL_FILE",
        "error",
        "A table is filled from a file that is not in the directory.",
        "Export it as an asset: tf.saved_model.Asset in TF2, the asset_filepaths collection in TF1.",
        "R3",
    ),
    Rule(
        "TWO_GRAPHS",
        "warning",
        "There are both saved_model.pb and saved_model.pbtxt; TensorFlow reads the first.",
        "Remove the one that is not meant.",
        "R3",
    ),
    Rule(
        "BIG_ENDIAN",
        "warning",
        "The variables were written on a big-endian machine.",
        "Load and export the model on a little-endian machine.",
        "R3",
    ),
    Rule("UNUSED_ASSET", "info", "A file in assets/ is not read by the graph.", _OPTIMIZE, "R15"),
)

_ASKED = (
    Rule(
        "NO_SERVING_TAG",
        "error",
        "No MetaGraph has the tag `serve`, the only one that servers load.",
        "Export with the tag tf.saved_model.SERVING.",
        "R10",
    ),
    Rule(
        "SAME_TAGS",
        "warning",
        "Several MetaGraphs have the same tags: servers load the first of them, Python none.",
        "Export it again, with tags of its own for every MetaGraph.",
        "R4",
    ),
    Rule(
        "NO_SIGNATURE",
        "error",
        "There is no signature: nothing can be asked.",
        "Export with signatures=….",
        "R10",
    ),
    Rule(
        "NO_PREDICT_SIGNATURE",
        "warning",
        "No signature has the method name tensorflow/serving/predict.",
        "Export one with PREDICT_METHOD_NAME: one for classify or regress takes serialized tf.Example.",
        "R10",
    ),
    Rule(
        "NO_SERVING_DEFAULT",
        "warning",
        "No signature is called serving_default: every request must name one.",
        "Call the main signature serving_default.",
        "R10",
    ),
    Rule("FIXED_BATCH", "error", "The outermost dimension is fixed: requests cannot be batched.", _BATCH, "R7"),
    Rule("NO_BATCH", "warning", "An input or output has no batch dimension.", _BATCH, "R7"),
    Rule(
        "UNKNOWN_RANK",
        "warning",
        "An input or output has an unknown number of dimensions: its batch cannot be checked.",
        "Export with an input_signature of known rank.",
        "R7",
    ),
    Rule(
        "UNKNOWN_SIZE",
        "info",
        "A dimension besides the batch is of unknown size: requests of every size are compiled anew on a GPU.",
        "Fix the size if the model always gets the same.",
        "R10",
    ),
    Rule(
        "UNSENDABLE_DTYPE",
        "warning",
        "JSON has no form for this type.",
        "Convert it inside the serving function, e.g. complex to two floats.",
        "R10",
    ),
    Rule(
        "UNSENDABLE_NAME",
        "warning",
        "A JSON client cannot send, or misreads, a value of this name.",
        "Rename it: letters, digits and underscores; not b64.",
        "R10",
    ),
    Rule(
        "ENCODED_TENSOR",
        "warning",
        "A sparse or composite tensor has no JSON form.",
        "Take and return dense tensors in the serving function.",
        "R10",
    ),
    Rule(
        "UNRESTORED_VARIABLE",
        "error",
        "A signature reads a variable that loading does not fill: it answers with an error.",
        _RESTORE,
        "R2",
    ),
    Rule(
        "RESTORED_IN_PYTHON_ONLY",
        "warning",
        "A signature reads a variable that tf.saved_model.load in Python fills and TensorFlow Serving does not.",
        _RESTORE,
        "R2",
    ),
    Rule(
        "CUSTOM_OP",
        "error",
        "The graph has an operation that TensorFlow does not have: loading fails where it is not registered.",
        "Serve it with a binary that registers the operation, or export a function without it.",
        "R10",
    ),
    Rule(
        "TEXT_OP",
        "warning",
        "The graph has an operation of TensorFlow Text: TensorFlow Serving has it, TensorFlow alone does not.",
        "Install tensorflow-text beside TensorFlow where Python loads it; servegraph uses it where it is installed.",
        "R10",
    ),
    Rule(
        "LOST_KERNEL",
        "error",
        "The graph has an operation that TensorFlow still knows and cannot run any more: every request fails.",
        "Serve it with a TensorFlow of the time that saved it, or train a model of another kind.",
        "R10",
    ),
)

_WEIGHT = (
    Rule("STRAY_FILE", "warning", "A file is not part of a SavedModel.", _OPTIMIZE, "R15"),
    Rule("STRAY_CHECKPOINT", "warning", "A training checkpoint lies in the directory.", _OPTIMIZE, "R15"),
    Rule("STRAY_SUMMARY", "warning", "A TensorBoard summary lies in the directory.", _OPTIMIZE, "R15"),
    Rule("ORPHAN_SHARD", "warning", "A data file of another set of variables lies there.", _OPTIMIZE, "R15"),
    Rule("UNUSED_BYTES", "info", "A data file has bytes that belong to no tensor.", _OPTIMIZE, "R15"),
    Rule("OPTIMIZER_STATE", "warning", "What an optimizer keeps is stored.", _OPTIMIZE, "R2"),
    Rule("UNREAD_TENSORS", "warning", "Variables are stored that no signature reads.", _OPTIMIZE, "R2"),
    Rule("DUPLICATE_TENSORS", "warning", "Tensors are stored more than once.", _OPTIMIZE, "R14"),
    Rule(
        "TRAINING_GRAPH",
        "warning",
        "A MetaGraph is there to train or to evaluate: servers do not load it.",
        _EXPORT,
        "R2",
    ),
    Rule("TRAINING_OPS", "warning", "A signature reaches operations that are for training.", _EXPORT, "R2"),
    Rule(
        "TRAINING_OPS_STORED",
        "info",
        "Operations for training are stored; no signature reaches them.",
        _OPTIMIZE,
        "R2",
    ),
    Rule("FROZEN_CONSTANTS", "info", "The graph file holds many bytes of constants.", _OPTIMIZE, "R14"),
)

_SAFE = (
    Rule(
        "UNSAFE_OP",
        "error",
        "A signature, or loading, reaches an operation that reads or writes files, or runs other code.",
        "Serve it only if you trust who made it, in a container without files and network.",
        "R18",
    ),
    Rule(
        "UNSAFE_OP_STORED",
        "warning",
        "An operation that reads or writes files, or runs other code, is stored; no signature reaches it.",
        "Do not load it in Python unless you trust who made it.",
        "R18",
    ),
    Rule(
        "ROUTINE",
        "warning",
        "The model brings a custom prediction routine: Python code that a server runs if it is told to trust it.",
        "Look at it in assets.extra/routine before you deploy with --trust-code.",
        "R11",
    ),
    Rule(
        "PYTHON_CODE",
        "warning",
        "Beside the graph there is Python code, which keras.models.load_model runs and no server does.",
        "Do not load it with Keras unless you trust who made it.",
        "R18",
    ),
)

# Only with a platform named.
_PLATFORM = (
    Rule("PLATFORM_ENDED", "warning", "The platform was shut down.", "Choose another platform.", "R20"),
    Rule(
        "OVER_SIZE_LIMIT",
        "error",
        "The directory is larger than the platform allows.",
        f"Run servegraph optimize with a budget; if that is not enough, {quota.ASK}.",
        "R13",
    ),
    Rule(
        "NO_MACHINE",
        "error",
        "No machine of the platform can hold the model.",
        "Run servegraph optimize with a budget.",
        "R20",
    ),
    Rule(
        "TOO_MANY_FILES",
        "error",
        "The directory has more files than the platform allows.",
        "Merge assets.",
        "R13",
    ),
    Rule(
        "NO_DEFAULT_FOR_PLATFORM",
        "error",
        "The platform calls serving_default, which is not there or has a method name that no server knows.",
        "Export a signature of that name with the method name tensorflow/serving/predict and the tag serve.",
        "R10",
    ),
    Rule(
        "BINARY_NAME",
        "info",
        "The platform sends and returns binary data only under names that end in _bytes.",
        "Rename it, if it holds bytes and not text.",
        "R10",
    ),
    Rule(
        "OLD_RUNTIME",
        "warning",
        "A prebuilt runtime of the platform is too old for the model.",
        "Serve it in a container of your own, with TensorFlow as new as the one that wrote it.",
        "R20",
    ),
    Rule(
        "EXPLANATIONS",
        "info",
        "Whether the platform can explain predictions, and why not.",
        "Where it cannot, compute attributions in the serving function itself.",
        "R12",
    ),
)

DAMAGE = frozenset(rule.code for rule in _WHOLE if rule.severity == "error")  # what keeps a model from loading
RULES = {rule.code: rule for rule in (*_WHOLE, *_ASKED, *_WEIGHT, *_SAFE, *_PLATFORM)}
