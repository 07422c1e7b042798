"""Estimators: trained and exported with TensorFlow 2.15, the last that has them, in an environment of its own.

`environment` makes that environment, `call` runs a task in it, `child`, `keras2` and `wide_and_deep` run there.
"""

BUILT_IN = "servegraph.estimator.wide_and_deep:make"
PREFIX = "estimator"
RECORD_FILE = "estimator.json"  # beside the checkpoints: what made the Estimator, so that an export can make it again
MODEL_DIR = "model_dir"


def estimator_function(trainer: str) -> str | None:
    """Return the function that makes the Estimator, None for a trainer of another kind.

    A trainer is `estimator` (the built-in wide-and-deep classifier or regressor), or `estimator:module:function`.
    """
    if trainer == PREFIX:
        return BUILT_IN
    return trainer[len(PREFIX) + 1 :] if trainer.startswith(f"{PREFIX}:") else None
