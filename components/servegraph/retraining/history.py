"""What was trained last and what came of it: one small JSON file a model, and the Keras model that was deployed."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from servegraph import storage
from servegraph.errors import InputError, StorageError
from servegraph.savedmodel.layout import content_digest
from servegraph.storage.directory import local_path

_DIGITS = 24  # of a SHA-256: enough that no two models of one history share them


@dataclass(frozen=True)
class Training:
    """A training and its outcome. `model` is the Keras file of the last training that was deployed, or empty."""

    data_digest: str
    settings_digest: str
    deployed: bool
    model: str = ""


class History:
    """The memory of one model below `directory`, a path or gs://."""

    def __init__(self, directory: str, model_name: str) -> None:
        """Name the place; nothing is read. Raises `InputError` (code `NO_HISTORY`) where it is empty."""
        if not directory:
            fix = "Give the parameter `history`: a directory or gs://bucket/prefix."
            raise InputError("There is no place to remember trainings.", code="NO_HISTORY", fix=fix)
        self._directory, self._name = directory.rstrip("/"), model_name

    def read(self) -> Training | None:
        """Return the last training, None before the first. Raises `InputError` (`BAD_HISTORY`), `StorageError`."""
        try:
            text = storage.open_dir(self._directory).read_bytes(f"{self._name}.json")
        except StorageError as error:
            if error.code == "NOT_FOUND":
                return None
            raise
        try:
            return Training(**json.loads(text))
        except (ValueError, TypeError) as exc:
            what = f"{self._directory}/{self._name}.json cannot be read: {exc}."
            raise InputError(
                what, code="BAD_HISTORY", fix="Remove it; the next retraining trains in any case."
            ) from exc

    def write(self, training: Training, model_file: Path | None) -> Training:
        """Remember a training; the model first, so that what is remembered is there.

        Of one that was deployed `model_file` is the Keras file, None for an Estimator: nothing can start from it.

        Raises:
            StorageError: the place cannot be written.
        """
        last = self.read()
        model = last.model if last else ""
        if training.deployed:
            model = self._keep(model_file) if model_file else ""
        kept = dataclasses.replace(training, model=model)
        local = local_path(self._directory)
        if local is not None:
            local.mkdir(parents=True, exist_ok=True)
        content = json.dumps(dataclasses.asdict(kept), indent=2).encode()
        storage.open_dir(self._directory).write_bytes(f"{self._name}.json", content)
        return kept

    def _keep(self, model_file: Path) -> str:
        """Copy the model to a place named after its content, and return its URI.

        A Keras file holds its own date: the same training done again leaves another one, which must not meet the first.
        """
        trained = storage.open_dir(model_file.parent)
        content = content_digest(trained).removeprefix("sha256:")
        folder = f"{self._directory}/{self._name}/{content[:_DIGITS]}"
        local = local_path(folder)
        if local is None:
            from servegraph.storage.gcs_upload import upload

            upload(trained, folder)
            return f"{folder}/{model_file.name}"
        local.mkdir(parents=True, exist_ok=True)
        partial = local / f".partial-{model_file.name}"
        shutil.copyfile(model_file, partial)
        partial.replace(local / model_file.name)
        return str(local / model_file.name)
