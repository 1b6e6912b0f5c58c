"""Keras layers of the models."""

from acnn_tf.layers.attention_pooling import AttentionPooling
from acnn_tf.layers.clip_normalization import ClipNormalization
from acnn_tf.layers.clip_share import clip_share
from acnn_tf.layers.concat_pooling import ConcatPooling
from acnn_tf.layers.cross_feature import CrossFeature
from acnn_tf.layers.elementwise_head import ElementwiseHead
from acnn_tf.layers.localization_head import LocalizationHead
from acnn_tf.layers.mean_pooling import MeanPooling
from acnn_tf.layers.memory_attention import MemoryAttention
from acnn_tf.layers.query_encoder import QueryEncoder
from acnn_tf.layers.temporal_context import TemporalContext

__all__ = [
    "AttentionPooling",
    "ClipNormalization",
    "ConcatPooling",
    "CrossFeature",
    "ElementwiseHead",
    "LocalizationHead",
    "MeanPooling",
    "MemoryAttention",
    "QueryEncoder",
    "TemporalContext",
    "clip_share",
]
