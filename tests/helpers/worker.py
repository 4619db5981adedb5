"""Run as a component that is not a stage, for tests of the executor: obey the parameters and log each start and end.

It reads its inputs from Kubeflow's executor input, as any container component does.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

given = json.loads(sys.argv[sys.argv.index("--executor-input") + 1])
parameters = given["inputs"]["parameterValues"]
history = Path(parameters["history"])
name = parameters["name"]


def note(event: str) -> None:
    with (history / "events.jsonl").open("a") as log:
        log.write(json.dumps({"task": name, "event": event, "time": time.time(), "pid": os.getpid()}) + "\n")


note("start")
earlier = len(list(history.glob(f"{name}.attempt-*")))
(history / f"{name}.attempt-{earlier}").touch()
if (history / f"{name}.fail").exists():
    print("something before the message")
    sys.exit("error: the worker was told to fail")
if earlier < parameters["failures"]:
    os.kill(os.getpid(), signal.SIGKILL)
while (history / f"{name}.hold").exists():  # until the test lets go
    time.sleep(0.01)
for other in filter(None, parameters["meet"].split(",")):  # ends only where the other runs at the same time
    while not list(history.glob(f"{other}.attempt-*")):
        time.sleep(0.01)

text = parameters["text"]
for artifact in given["inputs"].get("artifacts", {}).values():
    text += (Path(artifact["artifacts"][0]["uri"]) / "text.txt").read_text()
folder = Path(given["outputs"]["artifacts"]["out"]["artifacts"][0]["uri"])
folder.mkdir(parents=True)
(folder / "text.txt").write_text(text)
length = Path(given["outputs"]["parameters"]["length"]["outputFile"])
length.write_text(str(len(text)))
note("end")
