"""Which operations TensorFlow has, which are for training only, and which touch files or run code: tables.

`ops.tsv` lists the operations themselves; `TRAINING` and `DANGEROUS` below have one row a rule.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

TF_VERSION = "2.21"  # of ops.tsv

# What importing TensorFlow Text 2.21.1 adds to TF_GetAllOpList; TensorFlow Serving has it too.
TEXT_OPS = frozenset(
    [
        "CaseFoldUTF8",
        "ConstrainedSequence",
        "FastBertNormalize",
        "FastWordpieceTokenizeWithOffsets",
        "FindSourceOffsets",
        "MaxSpanningTree",
        "NormalizeUTF8",
        "NormalizeUTF8WithOffsetsMap",
        "PhraseTokenize",
        "RegexSplitWithOffsets",
        "RougeL",
        "SentenceFragments",
        "SentenceFragmentsV2",
        "SentencepieceDetokenizeOp",
        "SentencepieceIdToStringOp",
        "SentencepieceOp",
        "SentencepieceStringToIdOp",
        "SentencepieceTokenizeOp",
        "SentencepieceTokenizeWithOffsetsOp",
        "SentencepieceVocabSizeOp",
        "SplitMergeTokenizeWithOffsets",
        "TFText>BoiseTagsToOffsets",
        "TFText>ByteSplitByOffsets",
        "TFText>ByteSplitWithOffsets",
        "TFText>FastSentencepieceDetokenize",
        "TFText>FastSentencepieceTokenize",
        "TFText>FastWordpieceDetokenize",
        "TFText>NgramsStringJoin",
        "TFText>OffsetsToBoiseTags",
        "TFText>PhraseDetokenize",
        "TFText>RoundRobinGenerateMasks",
        "TFText>RoundRobinTrim",
        "TFText>Utf8Binarize",
        "TFText>WhitespaceTokenizeWithOffsetsV2",
        "TokenizerFromLogits",
        "UnicodeScriptTokenizeWithOffsets",
        "WhitespaceTokenizeWithOffsets",
        "WordpieceTokenizeWithOffsets",
    ]
)

TrainingKind = Literal["optimizer", "gradient", "queue", "reader", "loss", "summary", "training_mode"]
DangerKind = Literal["write", "read", "code", "network", "nested_graph", "abort"]


class TrainingRule(NamedTuple):
    """Operations whose whole name matches `pattern` are there for training."""

    kind: TrainingKind
    pattern: str
    why: str


TRAINING = (
    TrainingRule(
        "optimizer",
        r"(Resource)?(Sparse)?(Accumulator)?Apply(Ada\w+|AddSign|CenteredRMSProp|Ftrl(V2)?|Gradient(Descent)?|"
        r"(Keras)?Momentum|PowerSign|Proximal\w+|RMSProp)|(Resource|Sparse)?AccumulatorTakeGradient",
        "an optimizer changes the weights",
    ),
    TrainingRule(
        "gradient",
        # Not Conv2DBackpropInput and its kin: that is what a transposed convolution is, forwards.
        r"(?!Stop|Prevent|\w*Accumulator)_?\w+(Grad(Grad)?(V\d|A|Ex|Boxes|Image|WithArgmax|WithShape)*|Gradient)|"
        r"\w+BackpropFilter\w*|CudnnRNNBackprop\w*|Dilation2DBackpropInput|SymbolicGradient|BroadcastGradientArgs",
        "a gradient is computed",
    ),
    TrainingRule(
        "queue",
        r"(FIFO|RandomShuffle|PaddingFIFO|Priority)Queue(V2)?|Queue(Enqueue|Dequeue)\w*|Barrier(\w+)?",
        "an input queue waits for a thread that fills it",
    ),
    TrainingRule(
        "reader",
        r"(Identity|TextLine|TFRecord|WholeFile|FixedLengthRecord|LMDB)Reader(V2)?|Reader(Read|Restore|Reset)\w*|"
        r"(TFRecord|TextLine|FixedLengthRecord|LMDB|CSV|Sql)Dataset(V2)?|OneShotIterator|IteratorGetNext\w*",
        "training data is read",
    ),
    TrainingRule(
        "loss",
        r"(Sparse)?SoftmaxCrossEntropyWithLogits|CTCLoss(V2)?|L2Loss|\w*CandidateSampler",
        "a loss is computed",
    ),
    TrainingRule(
        "summary",
        r"(Scalar|Histogram|Image|Audio|Tensor|Merge|Write\w*)Summary(V2)?|SummaryWriter|CreateSummary\w+",
        "a summary for TensorBoard is made",
    ),
)

# Normalization over the batch at hand instead of the learned statistics; the attribute's default is true.
BATCH_NORM = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})


# Registered, so that a graph with them can be read, but with no kernel left on any device: by comparing
# get_all_registered_kernels of TensorFlow 2.21, with and without GPU support, with its operations. What else has none
# runs on TPUs only, or is for TensorFlow's own tests.
_KERNEL_GONE = re.compile(r"(Is)?BoostedTrees\w+")


def has_lost_its_kernel(op: str) -> bool:
    """Return whether TensorFlow `TF_VERSION` knows an operation of older models and cannot run it."""
    return _KERNEL_GONE.fullmatch(op) is not None


class DangerRule(NamedTuple):
    """Operations (names, separated by spaces) that reach outside of the graph."""

    kind: DangerKind
    what: str
    ops: str


# Wider than `saved_model_cli scan`, which knows ReadFile, WriteFile and PrintV2.
DANGEROUS = (
    DangerRule(
        "write",
        "write files",
        "WriteFile Save SaveSlices SaveV2 MergeV2Checkpoints DistributedSave SaveDataset SaveDatasetV2 "
        "DatasetToTFRecord ExperimentalDatasetToTFRecord DumpTensor CalibrationStatisticsSaver PrintV2 "
        "CreateSummaryFileWriter CreateSummaryDbWriter SnapshotDataset SnapshotDatasetV2 CacheDataset "
        "CacheDatasetV2 SnapshotDatasetReader DebugIdentity DebugIdentityV2 DebugIdentityV3 DebugNanCount "
        "DebugNumericSummary DebugNumericSummaryV2 FileSystemSetConfiguration",
    ),
    DangerRule(
        "read",
        "read files",
        "ReadFile MatchingFiles MatchingFilesDataset ExperimentalMatchingFilesDataset WholeFileReader "
        "WholeFileReaderV2 TextLineReader TextLineReaderV2 FixedLengthRecordReader FixedLengthRecordReaderV2 "
        "TFRecordReader TFRecordReaderV2 LMDBReader LMDBDataset ExperimentalLMDBDataset SqlDataset "
        "ExperimentalSqlDataset TextLineDataset TFRecordDataset TFRecordDatasetV2 FixedLengthRecordDataset "
        "FixedLengthRecordDatasetV2 CSVDataset CSVDatasetV2 ExperimentalCSVDataset LoadDataset "
        "ListSnapshotChunksDataset SnapshotChunkDataset Restore RestoreSlice RestoreV2 DTensorRestoreV2 "
        "LoadAndRemapMatrix GenerateVocabRemapping ImmutableConst FixedUnigramCandidateSampler RecordInput "
        "DecodeProtoV2 EncodeProto InitializeTableFromTextFile InitializeTableFromTextFileV2",
    ),
    DangerRule("code", "run Python code of the process", "PyFunc PyFuncStateless EagerPyFunc"),
    DangerRule(
        "network",
        "talk to other machines",
        "DataServiceDataset DataServiceDatasetV2 DataServiceDatasetV3 DataServiceDatasetV4 RegisterDataset "
        "RegisterDatasetV2 RpcCall RpcClient RpcServer RpcServerRegister RpcServerStart Send Recv _Send "
        "_Recv _HostSend _HostRecv",
    ),
    DangerRule("nested_graph", "run a graph hidden in a string", "DatasetFromGraph RemoteFusedGraphExecute"),
    DangerRule("abort", "end the server's process", "Abort"),
)

VARIABLE_OPS = frozenset({"VarHandleOp", "Variable", "VariableV2"})
# Nodes of these with an equal `shared_name` are one resource.
SHARED_OPS = frozenset({"VarHandleOp", "HashTableV2", "MutableHashTableV2", "MutableDenseHashTableV2"})
DANGER_OF: dict[str, DangerKind] = {op: rule.kind for rule in DANGEROUS for op in rule.ops.split()}


class KnownOp(NamedTuple):
    """An operation of TensorFlow: since which version it is public (None if it is not), and if it has functions.

    The versions are those that were looked at, see `ops.tsv`.
    """

    since: str | None
    calls_functions: bool


@cache
def known_ops() -> dict[str, KnownOp]:
    """Return every operation of TensorFlow `TF_VERSION`."""
    table = (Path(__file__).parent / "ops.tsv").read_text(encoding="utf-8")
    kinds: dict[tuple[str, str], KnownOp] = {}  # there are a dozen, for two thousand operations
    known = {}
    for line in table.splitlines():
        if not line.startswith("#"):
            name, _, rest = line.partition("\t")
            since, _, flag = rest.partition("\t")
            if (since, flag) not in kinds:
                kinds[since, flag] = KnownOp(since or None, flag == "f")
            known[name] = kinds[since, flag]
    return known


@cache
def training_kind(op: str) -> TrainingKind | None:
    """Return what an operation is for in training, or None if serving may need it."""
    for rule in TRAINING:
        if re.fullmatch(rule.pattern, op):
            return rule.kind
    return None


@cache
def is_watched(op: str) -> bool:
    """Tell whether nodes of an operation are kept whole: they call functions, are unknown, or have a rule."""
    known = known_ops().get(op)
    return known is None or known.calls_functions or op in DANGER_OF or op in BATCH_NORM
