"""Runs training/pretrain.py several times in child processes of one process, so that the imports are paid for once.

    python pretrain_driver.py '[{"arguments": [...], "kill": ["MovingAverage.update", 3]}, ...]'

`kill` names a method and at which call of it the run gets SIGKILL; `signal` may name another signal than 9, `late` sends it after the
call.
Prints a JSON list of exit codes, negative for a signal. Whatever asks for the network fails, and is named in the error output.
"""

import json
import os
import signal
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "training"))
import pretrain
from echocare_hf.pretraining.checkpoints import Checkpoints
from echocare_hf.pretraining.optimization import MovingAverage
from echocare_hf.pretraining.run import RunFolder


def refuse(*arguments, **named):
    print("asked for the network:", arguments, file=sys.stderr, flush=True)
    raise OSError("there is no network")


socket.socket.connect = socket.getaddrinfo = refuse

CLASSES = {kind.__name__: kind for kind in (Checkpoints, MovingAverage, RunFolder)}


def arm(place, call, number, late):
    kind, method = CLASSES[place.partition(".")[0]], place.partition(".")[2]
    original = getattr(kind, method)
    calls = []

    def armed(*arguments, **named):
        calls.append(1)
        if len(calls) == call and not late:
            os.kill(os.getpid(), number)
        result = original(*arguments, **named)
        if len(calls) == call and late:
            os.kill(os.getpid(), number)
        return result

    setattr(kind, method, armed)


def child(task):
    if "kill" in task:
        arm(*task["kill"], task.get("signal", signal.SIGKILL), task.get("late", False))
    return pretrain.main(task["arguments"])


codes = []
for task in json.loads(sys.argv[1]):
    process = os.fork()
    if not process:
        code = 1
        try:
            code = child(task)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    status = os.waitpid(process, 0)[1]
    codes.append(os.waitstatus_to_exitcode(status))
print(json.dumps(codes))
