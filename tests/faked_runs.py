"""`ablate` and `tune` of `experiments.sweeps`, with nothing trained.

    python -m tests.faked_runs MAIN WORKDIR FLAG ... -- FLAG ... -- ...

The main is run with the first flags, then, besides, with the next, and so on.
What would have been run is printed, and how each ends. Training with
`--dropout=1` fails, and reaches a mIoU of a hundredth of `--filters`.
"""

import importlib
import json
import os
import sys

import numpy as np
from absl import flags

from acnn_tf.data.annotations import Moment
from experiments import per_query_csv
from experiments.sweeps import ablation_table, runs


def run(processes, words, log, stdout=None):
    name = words[1].removeprefix("experiments.")
    given = dict(word[2:].partition("=")[::2] for word in words[2:])
    folder = given["workdir"]
    where = os.path.relpath(folder, sys.argv[2])
    sys.stdout.write(f"would {name} in {where}\n")
    assert os.path.exists(os.path.join(sys.argv[2], ".lock"))
    if name == "train":
        if float(given.get("dropout", 0)) == 1:
            raise runs.RunError("exit code 2, train.log: told to fail")
        with open(os.path.join(folder, "history.csv"), "w") as file:
            for score in ("epoch,val_mIoU", "0,0.01", "1,NUM", "2,0.02"):
                number = int(given.get("filters", 8)) / 100
                file.write(score.replace("NUM", str(number)) + "\n")
        open(os.path.join(folder, "model.keras"), "w").close()
        return
    moments = [Moment(q, "a man", "v", 9.0, ((0.0, 1.0),)) for q in "abcd"]
    names = [m for m in ablation_table.MEASURES if m != "mIoU"]
    hits = {name: np.array([True, True, False, False]) for name in names}
    hits["iou"] = np.array([0.5, 0.5, 0.0, 0.0])
    per_query_csv.write_per_query(given["per_query_out"], moments, hits)
    figures = dict.fromkeys(names, 0.5) | {"mIoU": 0.25}
    shuffled = {"shuffled": figures} if "shuffled" in given else {}
    text = json.dumps(
        figures | {"num_parameters": 7, "chance": figures} | shuffled
    )
    stdout.write(text.encode())


runs.Processes.run = run

if __name__ == "__main__":
    main = importlib.import_module(f"experiments.sweeps.{sys.argv[1]}")
    words = [f"--workdir={sys.argv[2]}", "--dataset=synthetic"]
    given = " ".join(sys.argv[3:]).split(" -- ")
    for more in given:
        flags.FLAGS([sys.argv[1], *words, *more.split()])
        try:
            main.run()
            end = "0"
        except SystemExit as error:
            end = error.code
        except (OSError, ValueError) as error:
            end = f"{type(error).__name__}: {error}"
        sys.stdout.write(f"ended with {end}\n---\n")
