"""Made-up values: numbers and words as arrays, and bytes that a graph can decode."""

from __future__ import annotations

import base64
import functools
import io
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from servegraph.answers.dtypes import is_float, is_text, numpy_type

WORDS = (b"alpha", b"beta", b"gamma", b"a b", b"")
IMAGE_SIDE = 64  # pixels
SOUND_RATE = 16_000  # samples a second
_TONE, _NOISE = 0.2, 0.5  # of a made-up sound: radians a sample, and times the tone
_LOUDNESS, _LOUDEST = 8000, 32_767  # of samples of 16 bits
_MOST_STEPS = 3  # of a sequence
_SEVERAL = 6  # words of a text; one in as many is unknown
_SEEN = 0.9  # of what a mask covers
PERIOD = 2037  # of three channels, and no divisor of a usual size, so that rows do not begin alike


Care = Literal["little", "some", "most"]


@dataclass(frozen=True)
class Draw:
    """A source of values.

    With `some` care what is looked up is always found, and ids are 0 and 1; with the `most` values are what the fewest
    graphs refuse: ones, the id 0, the text "1", the first key of a table.
    """

    random: np.random.Generator
    care: Care = "little"

    def values(self, kind: np.dtype[Any], shape: tuple[int, ...], encoding: Encoding | None = None) -> NDArray[Any]:
        """Return values of two decimals, of the ids 0 to 2, or text; or what `encoding` makes where there is one.

        Numbers repeat after `PERIOD`: of an image in a golden request little is left once that is compressed.
        """
        if is_text(kind) or encoding:
            made = np.empty(shape, dtype=object)
            for at in np.ndindex(shape):
                made[at] = encoding.encode(self) if encoding else self.word()
            return made.astype(kind)
        if self.care == "most":
            return np.full(shape, 1 if is_float(kind) or kind.kind == "c" else 0).astype(kind)
        if is_float(kind):
            return np.resize(self.random.normal(size=min(prod(shape), PERIOD)).round(2), shape).astype(kind)
        if kind.kind == "c":
            return np.asarray(self.random.normal(size=shape) + 1j * self.random.normal(size=shape)).astype(kind)
        ids = 2 if kind == np.bool_ or self.care == "some" else 3  # tables of two rows are frequent, as of types
        return np.asarray(self.random.integers(0, ids, shape)).astype(kind)

    def mask(self, kind: np.dtype[Any], shape: tuple[int, ...], encoding: Encoding | None = None) -> NDArray[Any]:
        """Return ones, and with little or some care here and there a zero: of a mask most is to be seen."""
        if is_text(kind) or encoding:
            return self.values(kind, shape, encoding)
        return np.asarray(np.ones(shape) if self.care == "most" else self.random.random(shape) < _SEEN).astype(kind)

    def word(self) -> bytes:
        """Return a short text."""
        return b"1" if self.care == "most" else WORDS[int(self.random.integers(len(WORDS)))]

    def numbers(self, dtype: str, count: int, encoding: Encoding | None = None) -> list[Any]:
        """Return values of a feature as plain Python values."""
        found: list[Any] = self.values(numpy_type(dtype), (count,), encoding).astype(object).tolist()
        return found


class Encoding(Protocol):
    """What the bytes of a text input, or the ids of an input of integers, must be."""

    def encode(self, draw: Draw) -> Any:
        """Return made-up bytes, or an id."""


@dataclass(frozen=True)
class Known:
    """Keys of a lookup table, or rows of an embedding table; `several`: a text of some keys, apart by blanks."""

    keys: tuple[Any, ...]
    several: bool = False

    def encode(self, draw: Draw) -> Any:
        """Return one of them, or a text of some; now and then with a word that is in no vocabulary."""
        if draw.care == "most":
            return self.keys[0]
        chosen = [self.keys[int(number)] for number in draw.random.integers(len(self.keys), size=_SEVERAL)]
        if isinstance(chosen[0], bytes) and draw.care == "little" and not draw.random.integers(_SEVERAL):
            chosen[0] = draw.word()
        return b" ".join(chosen) if self.several else chosen[0]


@dataclass(frozen=True)
class NumberText:
    """A number as text; `is_date`: of which parts are cut out before they become numbers."""

    is_float: bool
    is_date: bool = False

    def encode(self, draw: Draw) -> bytes:
        """Return the text of a number, or a date with its time."""
        if self.is_date:
            return b"2024-05-17 12:30:00"
        return str(draw.numbers("float64" if self.is_float else "int64", 1)[0]).encode()


@dataclass(frozen=True)
class CsvText:
    """A line of columns of these dtypes."""

    columns: tuple[str, ...]
    delimiter: str = ","

    def encode(self, draw: Draw) -> bytes:
        """Return one line."""
        return self.delimiter.join(
            draw.word().decode() if dtype == "string" else str(draw.numbers(dtype, 1)[0]) for dtype in self.columns
        ).encode()


@dataclass(frozen=True)
class ImageBytes:
    """An encoded image in colour."""

    format: Literal["jpeg", "png"]

    def encode(self, draw: Draw) -> bytes:
        """Return a small image: noise over a slope, the same at every pixel with the most care."""
        return _image(self.format, None if draw.care == "most" else int(draw.random.integers(1 << 16)))


@dataclass(frozen=True)
class SoundBytes:
    """A WAV file of so many channels and samples."""

    channels: int
    samples: int

    def encode(self, draw: Draw) -> bytes:
        """Return noise over a tone, the tone alone with the most care."""
        noise = 0 if draw.care == "most" else draw.random.normal(size=min(self.samples, PERIOD)) * _NOISE
        tone = np.sin(np.arange(self.samples) * _TONE) + np.resize(noise, self.samples)
        levels = np.clip(tone * _LOUDNESS, -_LOUDEST, _LOUDEST).astype("<i2")
        written = io.BytesIO()
        with wave.open(written, "wb") as file:
            file.setnchannels(self.channels)
            file.setsampwidth(levels.itemsize)
            file.setframerate(SOUND_RATE)
            file.writeframes(np.repeat(levels, self.channels).tobytes())
        return written.getvalue()


@dataclass(frozen=True)
class Base64Text:
    """Web-safe base64 of what it holds, as `tf.io.decode_base64` takes it."""

    inner: Encoding

    def encode(self, draw: Draw) -> bytes:
        """Return the text."""
        return base64.urlsafe_b64encode(self.inner.encode(draw)).rstrip(b"=")


@dataclass(frozen=True)
class Feature:
    """One feature of a tf.Example: `count` values of a dtype; `encoding` says what bytes must be."""

    dtype: str
    count: int
    encoding: Encoding | None = None

    def fill(self, made: Any, draw: Draw) -> None:
        """Put values into a `tf.train.Feature`."""
        if self.dtype == "string":
            made.bytes_list.value.extend(draw.numbers("string", self.count, self.encoding))
        elif self.dtype == "float32":
            made.float_list.value.extend(draw.numbers("float32", self.count))
        else:
            made.int64_list.value.extend(draw.numbers("int64", self.count, self.encoding))


@dataclass(frozen=True)
class ExampleSpec:
    """A serialized tf.Example with these features."""

    features: Mapping[str, Feature]

    def encode(self, draw: Draw) -> bytes:
        """Return one serialized Example, the same bytes for the same draw."""
        import tensorflow as tf

        example = tf.train.Example()
        for name, feature in sorted(self.features.items()):
            feature.fill(example.features.feature[name], draw)
        return bytes(example.SerializeToString(deterministic=True))


@dataclass(frozen=True)
class SequenceExampleSpec:
    """A serialized tf.SequenceExample: features of the whole, and those that each of its steps has."""

    context: Mapping[str, Feature]
    steps: Mapping[str, Feature]

    def encode(self, draw: Draw) -> bytes:
        """Return one serialized SequenceExample of a few steps, of one with the most care."""
        import tensorflow as tf

        example = tf.train.SequenceExample()
        for name, feature in sorted(self.context.items()):
            feature.fill(example.context.feature[name], draw)
        steps = 1 if draw.care == "most" else int(draw.random.integers(1, _MOST_STEPS + 1))
        for name, feature in sorted(self.steps.items()):
            for _ in range(steps):
                feature.fill(example.feature_lists.feature_list[name].feature.add(), draw)
        return bytes(example.SerializeToString(deterministic=True))


@functools.lru_cache(maxsize=64)
def _image(kind: str, seed: int | None) -> bytes:
    import tensorflow as tf

    random = np.random.default_rng(seed)
    slope = np.linspace(0, 255, IMAGE_SIDE)[:, None, None] * np.ones((1, IMAGE_SIDE, 3))
    noise = 0 if seed is None else random.uniform(-100, 100, slope.shape)
    pixels = np.clip(slope + noise, 0, 255).astype(np.uint8)
    encode = tf.io.encode_jpeg if kind == "jpeg" else tf.io.encode_png
    return bytes(encode(pixels).numpy())
