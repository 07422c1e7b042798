"""Models that others published, from their packages on PyPI, with inputs whose answer is known."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from itertools import product
from pathlib import Path

import numpy as np
from optimize_models import About, Make, Skipped, Sources, write_samples
from optimize_snippets import NAMES, SNIPPETS

SAMPLE_RATE, WINDOW = 22050, 43844
LOWEST_KEY = 21  # the MIDI number of the piano's lowest key, the first bin of basic-pitch


def unpack(package: str, sources: Sources) -> Path:
    """Download a wheel without what it depends on and unpack it; nothing of it is run or installed."""
    target = sources.downloads / package.partition("==")[0]
    if not target.exists():
        wheels = sources.downloads / "wheels"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels), package]
        if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
            raise Skipped(f"pip cannot download {package}")
        name, version = package.replace("-", "_").split("==")
        with zipfile.ZipFile(next(wheels.glob(f"{name}-{version}-*.whl"))) as wheel:
            wheel.extractall(target)
    return target


def guesslang(folder: Path, sources: Sources) -> About:
    """guesslang 2.2.1: an Estimator's export that names the programming language of a text."""
    shutil.copytree(unpack("guesslang==2.2.1", sources) / "guesslang/data/model", folder / "model")
    content, labels = [], []
    for (language, snippets), names in product(SNIPPETS.items(), NAMES):
        for snippet in snippets:
            for placeholder, name in zip(("AAA", "BBB", "CCC"), names, strict=True):
                snippet = snippet.replace(placeholder, name)  # noqa: PLW2901
            content += [snippet, snippet[: len(snippet) // 2]]  # half a program is harder to tell
            labels += [language] * 2
    write_samples(folder, {"content": content}, labels)
    return About(signature="predict", output="probabilities")


def basic_pitch(folder: Path, sources: Sources) -> About:
    """basic-pitch 0.4.0: the notes of two seconds of sound; tones of known pitch, with overtones and noise."""
    root = unpack("basic-pitch==0.4.0", sources)
    shutil.copytree(root / "basic_pitch/saved_models/icassp_2022/nmp", folder / "model")
    seconds = np.arange(WINDOW) / SAMPLE_RATE
    pitches = np.arange(36, 96, 2)
    random = np.random.default_rng(1)
    sounds = []
    for pitch in pitches:
        frequency = 440 * 2 ** ((pitch - 69) / 12)
        overtones = [overtone for overtone in range(1, 6) if overtone * frequency < SAMPLE_RATE / 2]
        tone = sum(np.sin(2 * np.pi * overtone * frequency * seconds) / overtone**1.5 for overtone in overtones)
        sounds.append(tone * random.uniform(0.05, 0.4) + random.normal(0, 0.003, WINDOW))
    write_samples(folder, {"input_2": np.round(np.stack(sounds), 3)[..., None]}, (pitches - LOWEST_KEY).tolist())
    return About(output="note", frames=True)


MODELS: dict[str, Make] = {"guesslang": guesslang, "basic-pitch": basic_pitch}
