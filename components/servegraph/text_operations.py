"""TensorFlow Text's operations, which TensorFlow Serving has and TensorFlow alone has not.

TensorFlow Serving links them in: tensorflow_serving/model_servers/BUILD, SUPPORTED_TENSORFLOW_OPS. Translators and
models around BERT cut their text with them.
"""

from __future__ import annotations

import functools
import importlib.util
import logging

PACKAGE = "tensorflow_text"
# What importing version 2.21.1 adds to TF_GetAllOpList.
OPERATIONS = frozenset(
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

_log = logging.getLogger(__name__)


@functools.cache
def register() -> None:
    """Let this process know them, where the package is installed; TensorFlow itself says what it misses."""
    if importlib.util.find_spec(PACKAGE) is None:
        return
    try:
        importlib.import_module(PACKAGE)
    except Exception:  # built for another TensorFlow
        _log.warning("%s is installed and cannot be imported.", PACKAGE, exc_info=True)
