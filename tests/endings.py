"""A main that ends in the way that a flag names."""

import sys

from absl import flags

from export import command

FLAGS = flags.FLAGS
flags.DEFINE_string("end", "", "How to end.")
flags.DEFINE_string("path", None, "A path.")


def run():
    sys.stdout.write(f"{FLAGS.path}\n")
    if FLAGS.end == "many lines":
        for _ in range(100_000):
            sys.stdout.write("line\n")
    elif FLAGS.end == "letters":
        sys.stdout.write("caf\u00e9 \u65e5\u672c\n")
    elif FLAGS.end:
        errors = {
            "interrupt": KeyboardInterrupt(),
            "saved": KeyboardInterrupt("Saved after step 3."),
            "missing": ModuleNotFoundError("no grpc", name="grpc._channel"),
            "memory": MemoryError("Unable to allocate 931. GiB"),
            "input": ValueError("bad input"),
            "file": FileNotFoundError(2, "No such file", f"{FLAGS.path}/a.b"),
            "fault": AssertionError("a fault of ours"),
        }
        raise errors[FLAGS.end]


if __name__ == "__main__":
    command.run(run)
