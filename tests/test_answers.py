"""How requests share what the server has, without a server."""

import asyncio
import types

import pytest

from export.protocol import answers
from export.protocol.answers import LARGE_BODY, Room, Service
from export.protocol.batching import Batcher, Call
from export.protocol.errors import ServingError


def test_a_body_that_others_wait_for_has_little_time_to_arrive(monkeypatch):
    monkeypatch.setattr(answers, "_GRACE", 0.01)
    room = Room(LARGE_BODY)
    arrived = []

    async def arrive(number, seconds):
        async with room.arriving():
            await asyncio.sleep(seconds)
        arrived.append(number)

    async def main():
        slow = [asyncio.ensure_future(arrive(n, 60)) for n in range(4)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in slow)
        # Two give way, the third is left alone.
        await asyncio.gather(arrive(4, 0), arrive(5, 0))
        assert arrived == [4, 5]
        assert [task.done() for task in slow] == [True, True, False, False]
        for task in slow[2:]:
            task.cancel()
        return await asyncio.gather(*slow, return_exceptions=True)

    ends = asyncio.run(main())
    assert [getattr(end, "code", None) for end in ends] == [
        *["RESOURCE_EXHAUSTED"] * 2,
        *[None] * 2,
    ]


def test_large_bodies_are_held_up_to_a_limit_and_small_ones_always():
    room = Room(2 * LARGE_BODY)
    with room.held(2 * LARGE_BODY), room.held(LARGE_BODY + 1):
        with pytest.raises(ServingError, match="Too many large requests"):
            with room.held(LARGE_BODY + 1):
                pass
        with room.held(LARGE_BODY):
            pass
    with room.held(4 * LARGE_BODY):
        pass


def answer(servable, receive=None, max_seconds=9.0, write=None):
    """What a service answers to one request, or the error it raises."""

    async def main():
        batcher = Batcher(1, 1, 0, 9, lambda rows: None)
        versions = types.SimpleNamespace(available=[1])
        service = Service(
            versions, batcher, answers.Metrics(), 100, 9, max_seconds
        )
        try:
            return await service.answer(
                "test",
                receive or received,
                lambda body: Call(servable, "", {}),
                write or (lambda call, outputs: b"ok"),
            )
        finally:
            assert batcher.close(5)

    async def received():
        return b"body"

    try:
        return asyncio.run(main())
    except ServingError as error:
        return error


class Servable:
    unmergeable = ()

    def __init__(self, **outputs):
        self.outputs = outputs

    def run(self, signature, inputs):
        return self.outputs


def test_a_request_ends_in_time_wherever_it_is():
    async def receive():
        await asyncio.sleep(60)

    error = answer(Servable(), receive, max_seconds=0.01)
    assert error.code == "DEADLINE_EXCEEDED"
    assert "0.01 s, --max_seconds" in error.message
    assert answer(Servable()) == b"ok"


def test_what_nobody_foresaw_is_internal_and_logged(caplog):
    def write(call, outputs):
        raise KeyError("what")

    error = answer(Servable(), write=write)
    assert (error.code, error.http_status) == ("INTERNAL", 500)
    assert "KeyError: 'what'" in caplog.text


def test_an_answer_that_is_too_large_is_refused():
    error = answer(Servable(y=types.SimpleNamespace(nbytes=101)))
    assert error.code == "RESOURCE_EXHAUSTED"
    assert "101 bytes" in error.message
