"""The prediction server: TF Serving's REST routes over the versions below a directory.

    state       `versions.json`: what a deploy says about the versions of a model
versions    what should be loaded, from the files below the root
served      what is loaded of one model, and which version answers
repository  follows the root in the background and swaps without a failed request
signatures  names, types and shapes of what a client may send
decode      JSON of a request -> arrays, checked against the signature
model       one loaded SavedModel (the server imports TensorFlow with it)
encode      arrays -> JSON of the answer
metadata    status and metadata as TF Serving prints them
http        routes and statuses, raw ASGI
artifacts   what is fetched from gs:// at the start, by TensorFlow in a child
server      the port, the signals, the process
child       a server started by another program, for probes and demos
"""
