"""The images are built, run and queried by `prove`, which says why where it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROVE = Path(__file__).with_name("prove")
CANNOT = 77


@pytest.mark.containers
def test_the_images_are_built_and_run_the_pipeline(tmp_path):
    environment = {**os.environ, "PYTHON": sys.executable, "WORK": str(tmp_path / "work")}
    done = subprocess.run([PROVE], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode == CANNOT:
        pytest.skip(done.stdout.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout[-4000:]
