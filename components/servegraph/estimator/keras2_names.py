"""What the configuration of a Keras 2 model may name unasked: what only computes.

Keras looks classes up by name, and functions too: what a model calls of TensorFlow on its inputs becomes a layer that
holds the function's public name. A file may name any and gives the arguments, and Keras calls it while it loads. So
what may be named is listed, rather than what is known to do harm. Of the functions that TensorFlow 2.15 makes a layer
of (those that dispatch on the types of their arguments), these are all but what reads, writes or prints
(`io.write_file`, `print`), runs Python (`py_function`), asks another machine (`rpc_call`), drives devices
(`xla_launch`), or takes functions (`scan`), which no file can hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from servegraph.savedmodel.wire import Malformed, payloads

_KINDS = ("layers", "initializers", "regularizers", "constraints", "optimizers", "losses", "metrics")
_RUN_CODE = {"Lambda"}
# What Keras writes into a configuration, or looks up, and has under no public name of those kinds.
_OWN = """
    Functional Model Sequential LinearModel WideDeepModel Policy AddLoss AddMetric SequenceFeatures
    SyncBatchNormalization CuDNNGRU CuDNNLSTM DropoutWrapper ResidualWrapper DeviceWrapper
    TensorShape __tuple__ __ellipsis__ __tensor__ __numpy__ __bytes__
    NumericColumn BucketizedColumn HashedCategoricalColumn IdentityCategoricalColumn VocabularyListCategoricalColumn
    VocabularyFileCategoricalColumn WeightedCategoricalColumn CrossedColumn IndicatorColumn EmbeddingColumn
    SequenceCategoricalColumn SequenceNumericColumn
"""
_OP = 2  # the field of NodeDef
_VERSION = re.compile(r"V[12]$")  # BatchNormalizationV1 and GRUV2 are layers, ZerosV2 is an initializer
# Keys of a configuration whose text is the path of a file that is read, and whose value is a function in any spelling.
_FILES = ("vocabulary", "vocabulary_file", "ckpt_to_load_from")
_FUNCTIONS = ("normalizer_fn", "residual_fn", "dropout_fn")

_OF_VALUES = re.compile(
    r"(compat\.v1\.)?("
    r"(__operators__|audio|bitwise|dtypes|image|losses|quantization|ragged|sets|signal|sparse|strings)\.\w+"
    r"|(linalg|math|nn|random)\.((experimental|special)\.)?\w+"
    r"|debugging\.(assert_\w+|Assert|check_numerics)"
    r"|io\.(de|en)code_\w+|io\.parse_\w+|io\.(de)?serialize_\w+|io\.extract_jpeg_shape"
    r"|arg_m(ax|in)|argsort|approx_top_k|batch_gather|batch_to_space(_nd)?|bitcast|boolean_mask"
    r"|broadcast_(to|dynamic_shape|static_shape)|cast|clip_by_\w+|concat|conv|conv2d_backprop_(filter|input)_v2"
    r"|convert_to_tensor|decode_raw|div|dynamic_partition|dynamic_stitch|edit_distance|einsum|ensure_shape|expand_dims"
    r"|extract_volume_patches|eye|i?fftnd|i?rfftnd|fill|fingerprint|floor_div|gather(_nd)?"
    r"|histogram_fixed_width(_bins)?|identity(_n)?|linspace|meshgrid|no_op|norm|one_hot|ones(_like)?|pad|parallel_stack"
    r"|quantize_v2|ragged_fill_empty_rows(_grad)?|random_index_shuffle|range|rank|realdiv|repeat|reshape"
    r"|reverse(_sequence)?|roll|scatter_nd|searchsorted|sequence_mask|setdiff1d|shape(_n)?|size|slice|sort"
    r"|space_to_batch(_nd)?|sparse_to_dense|split|squeeze|stack|stop_gradient|strided_slice|string_split|substr"
    r"|tensor_scatter_nd_(add|max|min|sub|update)|tensordot|tile|to_(bfloat16|complex\d+|double|float|int32|int64)"
    r"|transpose|truncate(div|mod)|tuple|unique(_with_counts)?|unravel_index|unstack|where|zeros(_like)?)"
    r"|keras\.(activations|losses|metrics)\.\w+"
    r"|keras\.backend\.(?!batch_[gs]et_value|clear_|function|get_|manual_|print_|reset_|set_|update)\w+"
)
# Among those: what looks other names up, and what reads a file that an argument names.
_LOOK_UP = {"get", "deserialize", "serialize"}
_READ = {"fixed_unigram_candidate_sampler", "decode_proto", "encode_proto"}
# What Keras asks a ragged or sparse tensor for, and how it makes one.
_OF_TENSORS = re.compile(
    r"(nested_|flat_)?values|(nested_)?row_(splits|lengths)|(nested_)?value_rowids|nrows|row_(starts|limits)|indices"
    r"|dense_shape|bounding_shape|with_(flat_)?values|with_row_splits_dtype|merge_dims|to_tensor|to_sparse"
)
_TO_RAGGED = re.compile(r"RaggedTensor\.from_\w+")
# The layers that call something by its name: which keys of their configuration hold it, and what it may be.
_CALLS = {
    "TFOpLambda": (("function",), _OF_VALUES),
    "SlicingOpLambda": (("function",), _OF_VALUES),
    "InstanceProperty": (("attr_name",), _OF_TENSORS),
    "InstanceMethod": (("attr_name",), _OF_TENSORS),
    "ClassMethod": (("cls_symbol", "method_name"), _TO_RAGGED),
}

# Operations that Keras of TensorFlow 2.0 to 2.3 makes layers of: they compute with the values of tensors.
_OPERATIONS = """
    Abs Acos Acosh Add AddN AddV2 All Angle Any ArgMax ArgMin AsString Asin Asinh Atan Atan2 Atanh AvgPool AvgPool3D
    BatchMatMul BatchMatMulV2 BatchToSpaceND BiasAdd Bincount Bitcast BitwiseAnd BitwiseOr BitwiseXor BroadcastTo
    Bucketize Cast Ceil Cholesky ClipByValue Complex ComplexAbs Concat ConcatV2 Conj Const Conv2D
    Conv2DBackpropInput Conv3D CropAndResize Cross Cumprod Cumsum DepthToSpace DepthwiseConv2dNative Diag DiagPart
    Digamma Dilation2D Div DivNoNan DynamicPartition DynamicStitch Einsum Elu EnsureShape Equal Erf Erfc Exp
    ExpandDims Expm1 ExtractImagePatches FFT FFT2D FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars Fill Floor
    FloorDiv FloorMod FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 Gather GatherNd GatherV2 Greater GreaterEqual
    HSVToRGB IFFT IFFT2D IRFFT IRFFT2D Identity IdentityN Imag InTopKV2 Inv Invert InvertPermutation IsFinite IsInf
    IsNan L2Loss LRN LeakyRelu LeftShift Less LessEqual Lgamma LinSpace Log Log1p LogSoftmax LogicalAnd LogicalNot
    LogicalOr MatMul MatrixBandPart MatrixDeterminant MatrixDiag MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3
    MatrixDiagV2 MatrixDiagV3 MatrixInverse MatrixSetDiag MatrixSetDiagV2 MatrixSetDiagV3 MatrixSolve
    MatrixTriangularSolve Max MaxPool MaxPool3D MaxPoolV2 Maximum Mean Min Minimum MirrorPad Mod Mul MulNoNan
    Multinomial Neg NonMaxSuppressionV2 NonMaxSuppressionV3 NonMaxSuppressionV4 NonMaxSuppressionV5 NotEqual OneHot
    OnesLike Pack Pad PadV2 Pow PreventGradient Prod Qr RFFT RFFT2D RGBToHSV RandomShuffle RandomStandardNormal
    RandomUniform RandomUniformInt Range Rank Real RealDiv Reciprocal ReduceJoin RegexReplace Relu Relu6 Reshape
    ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor Reverse ReverseSequence ReverseV2 RightShift Rint
    Roll Round Rsqrt ScatterNd SegmentMax SegmentMean SegmentMin SegmentProd SegmentSum Select SelectV2 Selu Shape
    ShapeN Sigmoid Sign Sin Sinh Size Slice Softmax SoftmaxCrossEntropyWithLogits Softplus Softsign SpaceToBatchND
    SpaceToDepth SparseSoftmaxCrossEntropyWithLogits SparseToDense Split SplitV Sqrt Square SquaredDifference
    Squeeze StatelessRandomNormal StatelessRandomUniform StaticRegexReplace StopGradient StridedSlice StringJoin
    StringLength StringLower StringStrip StringToHashBucketFast StringToHashBucketStrong StringToNumber StringUpper
    Sub Substr Sum Svd Tan Tanh TensorScatterAdd TensorScatterSub TensorScatterUpdate Tile TopK TopKV2 Transpose
    TruncateDiv TruncateMod TruncatedNormal Unique UniqueV2 Unpack UnravelIndex UnsortedSegmentMax
    UnsortedSegmentMin UnsortedSegmentProd UnsortedSegmentSum Where Xdivy Xlogy ZerosLike
"""


@dataclass(frozen=True)
class Names:
    """The classes and activations that a configuration may name."""

    classes: frozenset[str]
    activations: frozenset[str]

    @classmethod
    def of(cls, keras: Any) -> Names:
        """Return those of `keras`, of either generation."""
        public = [(name, value) for kind in _KINDS for name, value in vars(getattr(keras, kind)).items()]
        classes = {name for name, value in public if isinstance(value, type)}
        activations = {name for name in vars(keras.activations) if not name.startswith("_")}
        return cls(frozenset(classes - _RUN_CODE | set(_OWN.split())), frozenset(activations - _LOOK_UP))

    def strangers(self, config: Any) -> Iterator[str]:
        """Yield what a configuration names, at any depth, that is not known to do no more than compute."""
        stack = [config]
        while stack:
            value = stack.pop()
            if isinstance(value, list):
                stack += value
            elif isinstance(value, dict):
                stack += value.values()
                if "class_name" in value and (stranger := self._stranger(value)):
                    yield stranger

    def _stranger(self, named: dict[str, Any]) -> str | None:
        """Return what an object is, None if it is known by each name that Keras may look it up by."""
        name, module, config = str(named["class_name"]), named.get("module"), named.get("config")
        if name == "function":
            known = module == "builtins" and isinstance(config, str) and config in self.activations
            return None if known else f"the function {module}.{config}"
        arguments = config if isinstance(config, dict) else {}
        if name in _CALLS:
            keys, may_be = _CALLS[name]
            called = ".".join(str(arguments.get(key)) for key in keys)
            if not may_be.fullmatch(called) or called.rpartition(".")[2] in _LOOK_UP | _READ:
                return f"{name} of {called}"
        elif name == "TensorFlowOpLayer":
            if (operation := _operation(arguments.get("node_def"))) not in _OPERATIONS.split():
                return f"{name} of {operation}"
        elif name not in self.classes and _VERSION.sub("", name) not in self.classes:
            return name
        by_module = module is None or re.fullmatch(r"keras(\.\w+)*", str(module))
        if not by_module or named.get("registered_name") not in (None, name):
            return f"{name} of {module}, registered as {named.get('registered_name')}"
        return next((f"{name} with {told}" for told in _reached(arguments)), None)


def _operation(node: Any) -> str | None:
    """Return which operation a NodeDef names, given as JSON or, by TensorFlow 2.0 and 2.1, encoded as text."""
    if isinstance(node, dict):
        return str(node.get("op"))
    try:
        message = str(node).encode()
        named = [message[start:end].decode() for start, end in payloads(message, _OP)]
    except (Malformed, UnicodeError):
        return None
    return named[-1] if named else None  # of a field that stands there several times protobuf takes the last


def _reached(arguments: dict[str, Any]) -> Iterator[str]:
    """Yield which files and functions an object is given beside numbers and words."""
    yield from (f"the file {arguments[key]!r}" for key in _FILES if isinstance(arguments.get(key), str))
    yield from (f"the function {key}" for key in _FUNCTIONS if arguments.get(key) is not None)
