"""Ask a SavedModel sample requests with TensorFlow, and compare what two models answer.

A request is {input name: array with the batch first}; an answer is {output name: array}.
"""
