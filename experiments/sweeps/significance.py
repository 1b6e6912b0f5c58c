"""Whether two models differ by more than chance would have them."""

import typing

import numpy as np

# Of weights that are drawn at a time.
_CHUNK = 2**22


class Difference(typing.NamedTuple):
    """How much better one model is than another, and how sure that is."""

    difference: float  # mean over the queries
    low: float  # ends of its interval
    high: float

    @property
    def outside_noise(self):
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


def paired_bootstrap(
    values,
    reference,
    *,
    groups=None,
    confidence=0.95,
    num_samples=10_000,
    seed=0,
):
    """Compares two models over the same queries, by a paired bootstrap.

    With d_q the difference of query q, each model averaged over its runs, the
    difference is the mean of d. Its interval holds the middle `confidence` of
    the means of `num_samples` samples of Q queries, drawn with replacement.

    How hard a query is cancels out in d_q, which is why a pair tells smaller
    differences than the two figures with an error each. What a run's seed does
    to single queries is in d_q, and averaged as the runs are. What it does to
    all queries of a run at once is not: look at the deviation over seeds too.

    Args:
        values: `[Q]`, hits or IoU of each query, or `[S, Q]`, of S runs.
        reference: The same of the model to compare with, as many queries in
            the same order; may be of another number of runs.
        groups: `[Q]` labels, such as video ids. Groups are then drawn in place
            of queries, with all their queries: for queries that share what
            makes them hard.
        confidence: Float, share of the samples in the interval.
        num_samples: Int.
        seed: Int. Equal seeds draw the same samples, so that a model and
            itself differ by exactly 0, and two by the same the other way round.

    Returns:
        `Difference`.

    Example:

    >>> ours, theirs = [1, 1, 1, 0], [0, 1, 0, 0]
    >>> found = paired_bootstrap(ours, theirs)
    >>> found.difference, found.low, found.high, found.outside_noise
    (0.5, 0.0, 1.0, False)

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
    sections 8 and 13.3.
    """
    values = _mean_over_runs("values", values)
    reference = _mean_over_runs("reference", reference)
    if values.shape != reference.shape:
        raise ValueError(
            "`values` and `reference` must be of the same queries. Received: "
            f"{len(values)} and {len(reference)} queries"
        )
    if not 0 < confidence < 1:
        raise ValueError(
            f"`confidence` must be between 0 and 1. Received: {confidence}"
        )
    if num_samples < 1:
        raise ValueError(
            f"`num_samples` must be at least 1. Received: {num_samples}"
        )
    difference = values - reference
    count = np.ones(len(difference))
    if groups is not None:
        if len(groups) != len(difference):
            raise ValueError(
                "`groups` must have a label for each query. Received: "
                f"{len(groups)} labels, {len(difference)} queries"
            )
        _, group = np.unique(np.asarray(groups), return_inverse=True)
        count = np.bincount(group).astype(float)
        difference = np.bincount(group, difference)
    means = _resampled_means(difference, count, num_samples, seed)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    mean = difference.sum() / count.sum()
    return Difference(float(mean), float(low), float(high))


def _mean_over_runs(name, values):
    values = np.asarray(values, np.float64)
    if values.ndim not in (1, 2) or not values.size:
        raise ValueError(
            f"`{name}` must be [Q] or [S, Q], and not empty. Received shape: "
            f"{values.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"`{name}` must be finite. Received NaN or infinity")
    return values if values.ndim == 1 else values.mean(axis=0)


def _resampled_means(total, count, num_samples, seed):
    """Means of samples of groups: `total` and `count` of each are given."""
    rng = np.random.default_rng(seed)
    share = np.full(len(total), 1 / len(total))
    means = []
    at_once = max(1, _CHUNK // len(total))
    for start in range(0, num_samples, at_once):
        # How often each is drawn.  [samples, groups]
        drawn = rng.multinomial(
            len(total), share, size=min(at_once, num_samples - start)
        )
        means.append((drawn @ total) / (drawn @ count))
    return np.concatenate(means)
