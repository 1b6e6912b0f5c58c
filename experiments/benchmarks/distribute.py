"""The step of the `step` part on two replicas, and what that costs.

The same global batches go through `model.fit` in one process with two threads;
under `MirroredStrategy`, two replicas in one process; and under
`MultiWorkerMirroredStrategy`, two processes that speak over the loopback
interface. A replica has one thread, a worker one core: whoever computes, it is
on the same two cores, so that nothing here can be faster than the one process.
What is seen is what replicas cost.

The share of communication is measured by the step itself, without its
collectives, see `replica.Alone`; the input's own (whether any worker has data
left) stays. Besides: collectives on their own, TensorFlow told to be
deterministic, and a checkpoint.
"""

import contextlib
import os
import socket
import statistics
import time

from experiments.benchmarks import groups, measure, replica, step

# Of a turn. One process is quick: more of its steps, for turns of like times.
NUM_STEPS, NUM_STEPS_OF_ONE = 10, 40
NUM_WORKERS = 2
ONE, DETERMINISTIC = "one process, 2 threads", "the same, deterministic"
MIRRORED, WORKERS = "2 mirrored replicas", "2 workers"
WITHOUT = "the same without collectives"


def rows(smoke=False, rounds=5):
    """One process against two replicas, and these against parts of themselves.

    `seconds` are those of a step, from the end of one to the end of the next;
    rates are of examples of the global batch. Where two replicas stand
    against themselves, `communication_share` is the share of their step that
    goes when the collectives do.

    Args:
        smoke: Tiny shapes.
        rounds: Timed rounds.

    Returns:
        List of rows.
    """
    batch, width, _ = step.SMOKE_SHAPE if smoke else step.SHAPE
    measured, losses, about = _measure(smoke, rounds)
    num_parameters, others = about["num_parameters"], about["others"]

    def row(case, ours, against, other, **more):
        return measure.row(
            "distribute",
            case,
            against,
            ours,
            other,
            cpu_share_of_others=others,
            num_parameters=num_parameters,
            **more,
        )

    found = []
    for way in (DETERMINISTIC, MIRRORED, WORKERS):
        found.append(
            row(
                f"B={batch},D={width}: {ONE}",
                measured[ONE],
                way,
                measured[way],
                max_relative_error=max(
                    measure.max_relative_error(losses[ONE], [other])
                    for other in losses[way]
                ),
                examples_per_second=batch / measured[ONE].seconds,
                other_examples_per_second=batch / measured[way].seconds,
            )
        )
    for way in (MIRRORED, WORKERS):
        without = measured[way, WITHOUT]
        found.append(
            row(
                f"B={batch},D={width}: {way}",
                measured[way],
                WITHOUT,
                without,
                communication_share=1 - without.seconds / measured[way].seconds,
                collectives=about["collectives"][way],
            )
        )
        case = {
            "all_reduce": f"all_reduce of {4e-6 * num_parameters:.1f} MB",
            "all_gather": "all_gather of the windows",
        }
        for what, words in case.items():
            found.append(
                row(
                    f"{words}, {way}",
                    measured[way, what],
                    "their step",
                    measured[way],
                )
            )
    checkpoint, plain, size = about["checkpoint"]
    found.append(
        row(
            f"a checkpoint of {1e-6 * size:.1f} MB",
            measure.Measured(checkpoint, rounds),
            "the arrays to a plain file",
            measure.Measured(plain, rounds),
            bytes=size,
        )
    )
    return found


def _measure(smoke, rounds):
    """Asks all groups in turn.

    Returns:
        `Measured` by way or `(way, what)`; the losses of each process by way;
        and what else there is to know, by name.
    """
    ports = _free_ports(NUM_WORKERS)
    members = {
        ONE: [("none", 2, False, smoke)],
        DETERMINISTIC: [("none", 2, True, smoke)],
        MIRRORED: [("mirrored", 1, False, smoke)],
        WORKERS: [
            ("multi_worker", 1, False, smoke, ports, index)
            for index in range(NUM_WORKERS)
        ],
    }
    turns = {way: (way, "fit", True) for way in members}
    for way in (MIRRORED, WORKERS):
        turns[way, WITHOUT] = (way, "fit", False)
        for what in ("all_reduce", "all_gather"):
            turns[way, what] = (way, "alone", what)

    def num_steps(way):
        if smoke:
            return 2
        return NUM_STEPS_OF_ONE if way in (ONE, DETERMINISTIC) else NUM_STEPS

    with groups.started(replica.Replica, members) as ask:
        measure.progress("distribute: starts, and traces")
        seconds = {turn: [] for turn in turns}
        losses = {}
        for way, *question in turns.values():
            answers = ask[way](*question, num_steps(way))
            if question == ["fit", True]:
                # Of the steps that all ways take.
                losses[way] = [one[: num_steps(WORKERS)] for _, one in answers]
        others = _cpu_of_others(ask)
        start = time.perf_counter()
        for number in range(rounds):
            measure.progress(f"distribute: round {number + 1} of {rounds}")
            # There and back: what comes after the workers finds cold caches.
            order = list(turns.items())[:: 1 if number % 2 == 0 else -1]
            for turn, (way, *question) in order:
                time.sleep(measure.PAUSE)
                for answer in ask[way](*question, num_steps(way)):
                    taken = answer[0] if question[0] == "fit" else answer
                    seconds[turn] += taken
        about = {"checkpoint": ask[ONE]("checkpoint", rounds)[0]}
        if others is not None:
            others = _cpu_of_others(ask) - others
            others /= os.cpu_count() * (time.perf_counter() - start)
            others = max(0.0, others)
        about["others"] = others
        about["num_parameters"] = ask[ONE]("sizes")[0][0]
        about["collectives"] = {
            way: dict(ask[way]("sizes")[0][1]) for way in (MIRRORED, WORKERS)
        }
    measured = {
        turn: measure.Measured(statistics.median(taken), rounds)
        for turn, taken in seconds.items()
    }
    return measured, losses, about


def _free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            for _ in range(count)
        ]
        return [one.getsockname()[1] for one in sockets]


def _cpu_of_others(ask):
    """As `measure.cpu_of_others`, without the processes of the groups."""
    others = measure.cpu_of_others()
    if others is None:
        return None
    return others - sum(sum(one("cpu_seconds")) for one in ask.values())
