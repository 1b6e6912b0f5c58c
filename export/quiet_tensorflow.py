"""TensorFlow without the lines that it greets with on stderr.

It writes them from C++, to file descriptor 2, while it is imported; those of
2.21 come whatever TF_CPP_MIN_LOG_LEVEL says. Whoever sets that variable to 0
sees everything.
"""

import functools
import importlib.abc
import importlib.machinery
import os
import shutil
import sys
import tempfile


def install():
    """Makes the first import of TensorFlow, wherever it stands, a quiet one.

    If the import fails, what TensorFlow wrote is shown. What it logs later,
    also in the processes that this one starts, is limited to fatal errors.
    """
    level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if level != "0" and "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow as Python does, and has it loaded quietly."""

    def find_spec(self, name, path=None, target=None):
        if name != "tensorflow":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module
            spec.loader.exec_module = functools.partial(_quietly, load)
        return spec


def _quietly(load, module):
    try:
        stderr = os.dup(2)
    except OSError:  # it is closed: nobody sees anything
        load(module)
        return
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            load(module)
        except BaseException:
            written.seek(0)
            with open(stderr, "wb", closefd=False) as shown:
                shutil.copyfileobj(written, shown)
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
