"""Makes the Keras 2 models in this folder; run it with TensorFlow 2.15, which has Keras 2: python make.py.

They are committed because the TensorFlow of this project can neither write nor plainly load them (`add_slot`, `groups`).
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
    # Of the optimizers before 2.11, whose slots TensorFlow 2.21 does not load (`add_slot`).
    model.compile(keras.optimizers.legacy.Adam(), "sparse_categorical_crossentropy", metrics=["accuracy"])
    features = {"size": np.ones((8, 1), "f4"), "word": np.array([["red"], ["blue"]] * 4)}
    model.fit(features, np.array([0, 1] * 4), verbose=0)
    model.save(str(Path(__file__).parent / "keras2_saved"))
    image = keras.Input((4, 4, 2), name="image")
    x = keras.layers.BatchNormalization()(keras.layers.DepthwiseConv2D(3, padding="same")(image))
    x = keras.layers.Dense(3, "softmax", name="probabilities")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, x)
    model.compile("adam", "mse")
    model.fit(np.ones((4, 4, 4, 2)), np.ones((4, 3)), verbose=0)
    model.save(str(Path(__file__).parent / "keras2.h5"))
    model.save(str(Path(__file__).parent / "keras2.keras"))
    print(model(np.ones((1, 4, 4, 2))).numpy())


if __name__ == "__main__":
    main()
