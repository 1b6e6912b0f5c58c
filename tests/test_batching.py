import asyncio

import numpy as np
import pytest

from export.protocol.batching import Batcher, Call
from export.protocol.errors import ServingError


class Doubling:
    """Stands in for a servable: y = 2 x, and refuses negative numbers."""

    def __init__(self):
        self.unmergeable = set()
        self.runs = []

    def run(self, signature, inputs):
        x = inputs["x"]
        self.runs.append(x.tolist())
        if signature == "crash":
            raise KeyError("what")
        if (x < 0).any():
            raise ServingError("INVALID_ARGUMENT", "negative")
        return (
            {"y": 2 * x, "sum": x.sum()} if signature == "sum" else {"y": 2 * x}
        )


def ask(servable, *inputs, signature=""):
    """Runs calls that have all queued up before the first is taken."""

    async def main():
        batcher = Batcher(1, 8, 0, 99, lambda rows: None)
        with batcher._changed:
            calls = [
                asyncio.ensure_future(
                    batcher.run(Call(servable, signature, {"x": np.array(x)}))
                )
                for x in inputs
            ]
            await asyncio.sleep(0)
        try:
            answers = await asyncio.gather(*calls, return_exceptions=True)
        finally:
            assert batcher.close(5)
        return [
            a if isinstance(a, Exception) else a["y"].tolist() for a in answers
        ]

    return asyncio.run(main())


def test_only_what_fits_is_merged():
    servable = Doubling()
    inputs = [[1], [2, 3], [[4]], [5.0], 6, [7], [1, 2, 3, 4, 5]]
    expected = [[2], [4, 6], [[8]], [10.0], 12, [14], [2, 4, 6, 8, 10]]
    assert ask(servable, *inputs) == expected
    assert servable.runs == [
        [1, 2, 3, 7],  # one more of 5 rows would be 9, above 8
        [[4]],
        [5.0],
        6,
        [1, 2, 3, 4, 5],
    ]


def test_a_bad_request_fails_alone():
    servable = Doubling()
    first, bad, last = ask(servable, [1], [-1], [2])
    assert (first, last) == ([2], [4])
    assert bad.message == "negative"
    assert servable.runs == [[1, -1, 2], [1], [-1], [2]]


def test_other_rows_in_the_outputs_end_the_merging():
    servable = Doubling()
    assert ask(servable, [1], [2], signature="sum") == [[2], [4]]
    assert servable.runs == [[1, 2], [1], [2]]
    assert ask(servable, [1], [2], signature="sum") == [[2], [4]]
    assert servable.runs[3:] == [[1], [2]]


def test_an_unforeseen_error_is_an_internal_one():
    (error,) = ask(Doubling(), [1], signature="crash")
    assert error.code == "INTERNAL"


@pytest.mark.parametrize("is_removed", [True, False])
def test_calls_given_up_do_not_run(is_removed):
    servable = Doubling()

    async def main():
        batcher = Batcher(1, 1, 0, 2, lambda rows: None)
        call = Call(servable, "", {"x": np.array([1])})
        with batcher._changed:
            tasks = [asyncio.ensure_future(batcher.run(call)) for _ in "12"]
            await asyncio.sleep(0)
            with pytest.raises(ServingError, match="2 requests wait"):
                batcher.check_not_full()
            for task in tasks:
                task.cancel()
            if not is_removed:
                batcher._changed.notify_all()
                batcher._changed.wait(0.05)  # a thread finds them cancelled
            await asyncio.sleep(0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            assert isinstance(result, asyncio.CancelledError)
        assert batcher.num_waiting == 0
        assert batcher.close(5)

    asyncio.run(main())
    assert servable.runs == []
