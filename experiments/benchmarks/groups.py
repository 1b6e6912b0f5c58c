"""Processes that work in turn, one group after another, and end by themselves.

A group is one process, or several that need each other. The others sleep
meanwhile. Where one of a group dies or takes too long, all of them are ended.
"""

import contextlib
import multiprocessing
import time
from multiprocessing import connection

# A first answer waits for TensorFlow, tracing and the other workers.
TIMEOUT = 240.0


@contextlib.contextmanager
def started(work, groups):
    """Starts groups of processes; ends them at the end, whatever happens.

    Args:
        work: Function of a module, `work(*arguments)`, that returns a function
            from a question to an answer. It runs in each process.
        groups: Dictionary from a group's name to a list of `arguments`, one
            entry for each of its processes.

    Yields:
        Dictionary from name to a function `ask(*question)`, which returns the
        list of the answers of the group's processes.
    """
    spawn = multiprocessing.get_context("spawn")
    processes = []
    try:
        asking = {}
        for name, members in groups.items():
            group = []
            for arguments in members:
                ours, theirs = spawn.Pipe()
                process = spawn.Process(
                    target=_answer, args=(theirs, work, arguments), daemon=True
                )
                process.start()
                theirs.close()
                processes.append(process)
                group.append((process, ours))
            asking[name] = _asker(name, group)
        yield asking
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


def _asker(name, group):
    def ask(*question):
        end = time.monotonic() + TIMEOUT
        answers = {}
        with contextlib.suppress(BrokenPipeError):  # told of below
            for _, pipe in group:
                pipe.send(question)
        while len(answers) < len(group):
            waiting = [p for _, p in group if p not in answers]
            ready = connection.wait(waiting, max(0, end - time.monotonic()))
            if not ready:
                raise TimeoutError(
                    f"{name}: no answer to {question} in {TIMEOUT:.0f} s."
                )
            for pipe in ready:
                try:
                    answers[pipe] = pipe.recv()
                except (EOFError, ConnectionResetError):
                    number = [p for _, p in group].index(pipe)
                    process = group[number][0]
                    process.join(10)
                    raise ChildProcessError(
                        f"{name}: process {number} of {len(group)} ended with "
                        f"{process.exitcode} while asked for {question}."
                    ) from None
        return [answers[pipe] for _, pipe in group]

    return ask


def _answer(pipe, work, arguments):
    """The other end; ends with the process that asks."""
    answer = work(*arguments)
    with contextlib.suppress(EOFError):
        while True:
            pipe.send(answer(*pipe.recv()))
