"""Flags of a function's arguments, which have their names and defaults."""

import inspect
import typing

from absl import flags

from export import flag_help

# They are those of the module that asks for them.
flags.disclaim_key_flags()

_DEFINE = {
    bool: flags.DEFINE_bool,
    float: flags.DEFINE_float,
    list: flags.DEFINE_list,
    str: flags.DEFINE_string,
}


def define(function, subject, /, **helps):
    """Defines a flag for some arguments of a function.

    A flag that is not given has the value `None`, and leaves the function's
    default alone, which its help names. Its kind is the type of the default, or
    the argument's annotation. An integer is at least 1, or its default.

    Args:
        function: Any.
        subject: What `--help` prints above the flags.
        **helps: What the arguments are.
    """
    parameters = inspect.signature(function).parameters
    known = defaults(function)
    for name, text in helps.items():
        kind, default = parameters[name].annotation, known.get(name)
        if kind is inspect.Parameter.empty:
            kind = str if default is None else type(default)
        if type(None) in typing.get_args(kind):
            kind = typing.get_args(kind)[0]
        if default is not None and kind is not bool:
            default = f"{default:g}" if kind is float else default
            text = f"{text} Default: {default}."
        if typing.get_origin(kind) is typing.Literal:
            flags.DEFINE_enum(name, None, typing.get_args(kind), text)
        elif kind is int:
            least = 0 if default == 0 else 1
            flags.DEFINE_integer(name, None, text, lower_bound=least)
        else:
            _DEFINE[kind](name, None, text)
    flag_help.subject(subject, *helps)


def defaults(function):
    """The defaults of a function's arguments, by name, but for `None`."""
    arguments = inspect.signature(function).parameters.values()
    return {
        argument.name: argument.default
        for argument in arguments
        if argument.default not in (argument.empty, None)
    }
