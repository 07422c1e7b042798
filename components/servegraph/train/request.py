"""What to train on what, judged without NumPy: before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from servegraph.data import census
from servegraph.errors import InputError
from servegraph.storage.data_files import require_uri

DEFAULT_TRAINER = "servegraph.train.wide_and_deep:train"
_LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class TrainRequest:
    """What to train on what. `data` is `census` or a URI; an empty `eval_data` holds a fifth of the data out."""

    data: str = census.NAME
    eval_data: str | None = None
    schema: str | None = None
    label: str | None = None
    trainer: str = DEFAULT_TRAINER
    seed: int = 1
    warm_start: str | None = None  # Keras file of an earlier model, a path or gs://

    def __post_init__(self) -> None:
        """Check what needs no data.

        Raises:
            InputError: the seed is none that NumPy takes (code `BAD_SEED`), or the census sample is to have another
                label than that of its schema (`BAD_LABEL`).
            StorageError: `data` is empty (code `BAD_PATH`).
        """
        require_uri(self.data)
        if not 0 <= self.seed <= _LARGEST_SEED:
            raise InputError(f"The seed is {self.seed}.", code="BAD_SEED", fix=f"Give one from 0 to {_LARGEST_SEED}.")
        if self.data == census.NAME and not self.schema and self.label not in (None, census.LABEL):
            raise InputError(
                f"The label of the census sample is {census.LABEL!r}, not {self.label!r}.",
                code="BAD_LABEL",
                fix="Give no label, or a schema that has it.",
            )


def require_path(checkpoint_dir: str) -> None:
    """Check that checkpoints go where a trainer writes files.

    Raises:
        InputError: it is a URI (code `BAD_CHECKPOINT_DIR`); as a path that is a new directory which ends with the task.
    """
    if "://" in checkpoint_dir:
        raise InputError(
            f"The checkpoint_dir {checkpoint_dir!r} is no path of a file system.",
            code="BAD_CHECKPOINT_DIR",
            fix="Give a path: on Vertex AI /gcs/BUCKET/… for gs://BUCKET/…, on a cluster one on a volume.",
        )
