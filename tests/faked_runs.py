"""`experiments.ablate`, with nothing trained: told how each run ends.

    python -m tests.faked_runs WORKDIR GRID FLAG ...

Runs with `--dropout=1` fail. What would have been run is printed. Then it is
started again, with `--shuffled`.
"""

import json
import os
import sys

import numpy as np
from absl import flags

from acnn_tf.data.annotations import Moment
from experiments import ablate, ablation_table, query_files, runs


def run(processes, words, log, stdout=None):
    name = words[1].removeprefix("experiments.")
    given = dict(word[2:].partition("=")[::2] for word in words[2:])
    where = os.path.relpath(given["workdir"], sys.argv[1])
    sys.stdout.write(f"would {name} in {where}\n")
    folder = given["workdir"]
    if name == "train":
        if given.get("dropout") == "1":
            raise runs.RunError("exit code 2, train.log: told to fail")
        open(os.path.join(folder, "model.keras"), "w").close()
        return
    moments = [Moment(q, "a man", "v", 9.0, ((0.0, 1.0),)) for q in "abcd"]
    names = [m for m in ablation_table.MEASURES if m != "mIoU"]
    hits = {name: np.array([True, True, False, False]) for name in names}
    hits["iou"] = np.array([0.5, 0.5, 0.0, 0.0])
    query_files.write_queries(given["per_query_out"], moments, hits)
    figures = dict.fromkeys(names, 0.5) | {"mIoU": 0.25}
    shuffled = {"shuffled": figures} if "--shuffled" in words else {}
    text = json.dumps(
        figures | {"num_parameters": 7, "chance": figures} | shuffled
    )
    stdout.write(text.encode())


runs.Processes.run = run

if __name__ == "__main__":
    flags.FLAGS(["ablate", f"--workdir={sys.argv[1]}", *sys.argv[2:]])
    for shuffled in (False, True):
        flags.FLAGS.shuffled = shuffled
        try:
            ablate.run()
        except SystemExit as end:
            sys.stdout.write(f"ended with {end.code}\n")
