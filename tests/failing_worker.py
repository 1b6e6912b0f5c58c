"""The work of a process that fails when it is asked to; needs no TensorFlow."""

import os
import time


def answer_or_die(number):
    def answer(what):
        if what == "die" and number == 1:
            os._exit(3)
        if what != "answer":
            time.sleep(100)  # as one that waits for the other
        return number

    return answer
