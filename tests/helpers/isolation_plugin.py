"""What a job may do: come back, fail, hang, exit, die, allocate, and leave things behind."""

import builtins
import os
import re
import subprocess
import sys
import threading
import time

from benchmarks.errors import Unavailable  # noqa: F401 (`raises` takes it by name)


def add(progress, a=1, b=1):
    return {"sum": a + b, "pid": os.getpid(), "home": os.environ.get("METABENCH_TEST")}


def report(progress, count, pause):
    for number in range(count):
        progress({"step": number})
        time.sleep(pause)
    return {}


def raises(progress, kind="KeyError", text="it broke"):
    raise {**vars(builtins), **globals()}[kind](text)


def too_big_a_tensor(progress):
    import torch

    torch.empty(2**52)


def hang(progress, how, pids=None):
    print("about to hang", flush=True)
    if pids is not None:
        child = detached() if how == "detached" else subprocess.Popen(["sleep", "60"]).pid
        with open(pids, "w") as file:
            file.write(f"{os.getpid()} {child}")
    if how == "in C":  # never gives the interpreter's lock back
        re.match("(a+)+$", "a" * 80 + "b")
    while True:
        time.sleep(0.01)


def detached():
    "A process that has left group and session, and whose parent has ended."
    return int(subprocess.check_output(["sh", "-c", "setsid sleep 60 > /dev/null & echo $!"]))


def detaches(progress, pid, exit):
    with open(pid, "w") as file:
        file.write(str(detached()))
    if exit:
        os._exit(0)
    return {}


def exits(progress, code):
    sys.stderr.write("last words\n")
    subprocess.Popen(["sleep", os.environ["METABENCH_TEST"]])
    os._exit(code)


def dies(progress, number):
    os.kill(os.getpid(), number)
    time.sleep(10)


def allocate(progress):
    kept = []
    while True:
        kept.append(bytearray(20_000_000))
        time.sleep(0.01)


def allocate_in_a_child(progress):
    subprocess.run([sys.executable, "-c", "import time; kept = bytearray(300_000_000); time.sleep(60)"])


def leaves_a_thread(progress):
    subprocess.Popen(["sleep", os.environ["METABENCH_TEST"]])
    threading.Thread(target=time.sleep, args=(60,)).start()
    return {"done": True}


def returns_no_plain_value(progress):
    return {"value": object()}


def shout(progress):
    os.system("echo from a C library")
    print("x" * 50_000)
    print("the end", file=sys.stderr)
    raise ValueError("see above")


def threads(progress):
    import torch

    return {"torch": torch.get_num_threads(), "variable": os.environ.get("OMP_NUM_THREADS")}


def gpu(progress, pause):
    time.sleep(pause)
    return {"gpu": os.environ.get("CUDA_VISIBLE_DEVICES")}
