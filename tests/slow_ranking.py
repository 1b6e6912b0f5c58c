"""Ranking of the windows of one video as its formulas say, pair by pair."""

import numpy as np

from acnn_tf import segments as segments_lib


def shift(settings, windows, offsets, duration):
    shifted = segments_lib.decode_offsets(
        np.float64(offsets), windows, settings.offset_unit, settings.frame_rate
    )
    shifted = np.clip(shifted, 0.0, duration)
    stays = shifted[:, 0] >= shifted[:, 1]
    shifted[stays] = np.clip(windows[stays], 0.0, duration)
    return shifted


def consensus(segments, scores, min_iou):
    overlap = segments_lib.iou(segments[:, None], segments)  # [W, W]
    gains = [
        np.maximum(0.0, (overlap - m) / (1.0 - m))
        for m in np.atleast_1d(min_iou)
    ]
    return np.log(np.mean(gains, axis=0) @ np.exp(np.float64(scores)))


def decay(segments, scores, sigma):
    place = np.arange(len(scores))
    one, other = scores[:, None], scores
    # [w, v]: v is better than w, or equal and before it.
    better = (other > one) | ((other == one) & (place < place[:, None]))
    overlap = segments_lib.iou(segments[:, None], segments)
    overlap = np.where(better, overlap, 0.0)
    cover = overlap.max(axis=1)
    loss = (overlap**2 - cover**2).max(axis=1)
    return scores - np.maximum(0.0, loss) / sigma


def nms(segments, scores, max_iou, top_n=None):
    overlap = segments_lib.iou(segments[:, None], segments)
    kept = []
    for place in sorted(range(len(scores)), key=lambda place: -scores[place]):
        if (overlap[place, kept] <= max_iou).all():
            kept.append(place)
    return kept[:top_n]


def rank(settings, windows, scores, offsets, duration, top_n, max_iou):
    segments = shift(settings, windows, offsets, duration)
    if settings.consensus_iou is not None:
        scores = consensus(segments, scores, settings.consensus_iou)
    if settings.decay_sigma is not None:
        scores = decay(segments, scores, settings.decay_sigma)
    kept = nms(segments, scores, max_iou, top_n)
    return segments[kept], scores[kept]
