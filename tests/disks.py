"""A disk that is full, and a process killed at every change that it makes."""

import contextlib
import itertools
import os
import resource
import signal

_CHANGES = ("fsync", "mkdir", "open", "remove", "replace", "rmdir")


@contextlib.contextmanager
def full_disk(size):
    """Lets no file grow beyond a size: it then fails as on a full disk."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def kill_everywhere(prepare, act, look):
    """Runs `act` until it is killed, each time one change later.

    For a script of its own: each time the process is forked. `prepare` makes
    the disk as it was before, `look` says what there is now; returns what it
    said each time.
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
