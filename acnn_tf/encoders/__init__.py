"""Frames -> clip features: one encoder a file.

Each name is imported from its module when it is first used: comparing two
descriptions needs no network.
"""

import importlib

# Public name -> its module.
_MODULES = {
    "Encoder": "encoder",
    "difference": "descriptions",
    "make": "encoder",
}

__all__ = list(_MODULES)


def __getattr__(name):
    if name in _MODULES:
        module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
