"""Tables for training: a schema, CSV or TFRecord files read through it, and the census sample.

Needs numpy (TensorFlow brings it); TFRecord files need TensorFlow itself.
"""
