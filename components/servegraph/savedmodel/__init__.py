"""The SavedModel format on disk, read and written without TensorFlow and without protobuf.

`FORMAT.md` beside this file is the format in prose. Bottom up:

    dtypes          the element types and their sizes
    wire            protobuf's wire format, through a window over a file of any size
    pbtxt           the text form, rewritten into the wire form so that there is one reader
    sstable         the table file that `variables.index` is
    bundle_index    what its entries say
    bundle_reader   tensors of a checkpoint: listed, read in chunks, verified
    bundle_writer   a checkpoint written as a stream
    graph           what `saved_model.pb` says, as values
    graph_reader    the scan that makes them; constants are skipped, not loaded
    ops             which operations TensorFlow has, and which of them are for training or touch files
    reachability    what a signature can run, what it cannot, which variables it reads
    layout          which files belong, the digest of a directory, what is not a SavedModel
"""
