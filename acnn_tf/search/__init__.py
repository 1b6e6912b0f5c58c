"""From encoded queries to moments.

Every function takes the model as an argument and asks little of it:
`encode_windows`, `match`, and the attributes `grid`, `context_size`,
`clip_seconds`, `offset_unit`, `consensus_iou` and `decay_sigma`; `MomentIndex`
asks for `encode_queries`, `fold`, `score` and `locate` as well. Where a model
has an `encoder`, what made the features that it learned from, others are
refused. One that compares windows with the whole of their video has
`whole_video`, which is asked for a long video, encoded in pieces.
"""

from acnn_tf.search.encoding import (
    EncodedVideo,
    encode_videos,
    encoder_inputs,
    to_numpy,
)
from acnn_tf.search.index_files import IndexFileError
from acnn_tf.search.moment_index import FoundMoment, MomentIndex
from acnn_tf.search.ranking import candidates, consensus, decay, nms
from acnn_tf.search.saliency import clip_saliency, score_curve
from acnn_tf.search.shards import (
    assign_videos,
    describe_shards,
    done_shards,
    encode_shard,
)

__all__ = [
    "EncodedVideo",
    "FoundMoment",
    "IndexFileError",
    "MomentIndex",
    "assign_videos",
    "candidates",
    "clip_saliency",
    "consensus",
    "decay",
    "describe_shards",
    "done_shards",
    "encode_shard",
    "encode_videos",
    "encoder_inputs",
    "nms",
    "score_curve",
    "to_numpy",
]
