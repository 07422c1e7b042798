"""The SavedModel format on disk, read and written without TensorFlow and without protobuf.

`FORMAT.md` beside this file is the format in prose. Bottom up:

    dtypes          the element types and their sizes
    wire            protobuf's wire format, through a window over a file of any size
    pbtxt           the text form, rewritten into the wire form so that there is one reader
    sstable         the table file that `variables.index` is
    bundle_index    what its entries say
    string_tensors  how strings and variants are stored
    bundle_reader   tensors of a checkpoint: listed, read in chunks, verified
    bundle_writer   a checkpoint written as a stream
    ops             which operations TensorFlow has, which are for training, which touch files
    graph           what `saved_model.pb` says, as values
    nodes           the nodes of a graph or function, without their constants
    meta_graph      the other messages of a MetaGraph
    graph_reader    the scan that puts them together
    restores        which variable gets which tensor when a model is loaded
    graph_walk      what of a graph some of its outputs need
    reachability    what a signature can run, what it cannot, which variables it reads
    embedded        graphs inside of graphs, and the constants that operations are given
    metadata_files  the small files beside the graph
    layout          which files belong, the digest of a directory, what is not a SavedModel
"""
