"""Makes the Keras 2 model in this folder; run it with TensorFlow 2.15, which has Keras 2: python make.py.

It is committed because the TensorFlow of this project can neither write nor plainly load one (`add_slot`).
"""

from pathlib import Path

import numpy as np
import tensorflow as tf


def main() -> None:
    keras = tf.keras
    keras.utils.set_random_seed(1)
    size = keras.Input((1,), name="size")
    word = keras.Input((1,), name="word", dtype="string")
    ids = keras.layers.StringLookup(vocabulary=["red", "blue"])(word)
    x = keras.layers.Concatenate()([size, keras.layers.Flatten()(keras.layers.Embedding(3, 4)(ids))])
    x = keras.layers.BatchNormalization()(keras.layers.Dense(8, "relu")(x))
    x = keras.layers.Dense(2, "softmax", name="probabilities")(keras.layers.Dropout(0.3)(x))
    model = keras.Model({"size": size, "word": word}, x)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    features = {"size": np.ones((8, 1), "f4"), "word": np.array([["red"], ["blue"]] * 4)}
    model.fit(features, np.array([0, 1] * 4), verbose=0)
    model.save(str(Path(__file__).parent / "keras2_saved"))


if __name__ == "__main__":
    main()
