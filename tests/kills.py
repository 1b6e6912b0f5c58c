"""Kills a process at every change that it makes to the disk, one by one."""

import itertools
import os
import signal

_CHANGES = ("fsync", "mkdir", "open", "remove", "replace", "rmdir")


def kill_everywhere(prepare, act, look):
    """Runs `act` until it is killed, each time one change later.

    For a script of its own: each time the process is forked.

    Args:
        prepare: Function that makes the disk as it was before.
        act: Function that is killed, but for the last time.
        look: Function that says what there is now.

    Returns:
        List of what `look` returned, each time.
    """
    found = []
    for number in itertools.count():
        prepare()
        child = os.fork()
        if not child:
            count = itertools.count()
            for name in _CHANGES:
                wrapped = _killed(getattr(os, name), count, number)
                setattr(os, name, wrapped)
            act()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        found.append(look())
        if status == 0:
            return found
        if status != signal.SIGKILL:
            raise RuntimeError("`act` failed.")


def _killed(function, count, number):
    def wrapped(*arguments, **options):
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)

    return wrapped
