"""The losses that a training sums up, each with the weight of its flag."""

import pytest

from acnn_tf import losses
from acnn_tf.data import batches
from acnn_tf.data.annotations import Moment
from acnn_tf.data.sentences import query_inputs
from experiments import losses_and_optimizer
from tests import small_acnn

MOMENTS = [
    Moment("0", "the door", "v", 20.0, ((2.0, 6.0),)),
    Moment("1", "a person opens", "v", 20.0, ((9.0, 19.0),)),
]


def test_each_weight_is_that_of_its_loss():
    model = small_acnn.make_model(dropout=0.0, clip_dropout=0.0)
    features = {"v": small_acnn.RNG.normal(size=(20, small_acnn.CLIP_DIM))}
    queries = query_inputs(MOMENTS, model.vocabulary)
    made = batches.training_videos(
        MOMENTS, queries, features, model, batch_size=2
    )
    inputs, truth = next(iter(made.dataset))
    found = model(inputs)
    terms = {
        "video_weight": losses.VideoAlignmentLoss(0.2)(
            truth["score"], found["score"]
        ),
        "batch_weight": losses.AlignmentLoss(7.0, 0.5)(
            truth["batch_score"], found["batch_score"]
        ),
        "offset_weight": losses.OffsetLoss()(truth["offset"], found["offset"]),
    }
    for weights in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (2.0, 3.0, 5.0)):
        losses_and_optimizer.compile_model(
            model,
            num_steps=10,
            target_iou=0.2,
            positive_weight=7.0,
            negative_weight=0.5,
            **dict(zip(terms, weights)),
        )
        expected = sum(w * float(t) for w, t in zip(weights, terms.values()))
        loss = model.compute_loss(inputs, truth, found)
        assert float(loss) == pytest.approx(expected, rel=1e-5), weights
    # Each of them counts, and the two weights of pairs are not one another.
    swapped = losses.AlignmentLoss(0.5, 7.0)(
        truth["batch_score"], found["batch_score"]
    )
    values = [*map(float, terms.values()), float(swapped)]
    assert len({round(value, 3) for value in values}) == 4
