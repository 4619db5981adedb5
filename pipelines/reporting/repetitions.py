"""Find the repetitions of a subgraph in a run, and the one whose results the tasks after them use.

Tasks called `NAME-0/TASK`, `NAME-1/TASK`, ... are repetitions of one subgraph, whatever NAME is: the rounds of a loop.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipelines.run_folder.record import RunRecord, TaskRecord

_GROUP = re.compile(r"(.+)-(\d+)")


@dataclass
class Repetition:
    """One repetition, such as `em-1`."""

    name: str
    tasks: dict[str, TaskRecord] = field(default_factory=dict)
    """Name inside the repetition, such as `cluster`, -> task; in the order of the run."""

    @property
    def seconds(self) -> float:
        """Wall time of all its tasks together, s."""
        return sum(task.seconds for task in self.tasks.values())

    @property
    def started(self) -> bool:
        """Whether at least one of its tasks was started."""
        return any(task.state != "waiting" for task in self.tasks.values())

    @property
    def passed_through(self) -> bool:
        """Whether its tasks were told to skip, since the loop was over."""
        return any(task.parameters.get("skip") is True for task in self.tasks.values())


@dataclass
class Loop:
    """The repetitions of one subgraph, in order."""

    name: str
    """Such as `em`."""
    repetitions: list[Repetition] = field(default_factory=list)

    def task_names(self) -> list[str]:
        """Names inside the repetitions, in the order of the run."""
        return list(dict.fromkeys(name for repetition in self.repetitions for name in repetition.tasks))

    def last_computed(self) -> Repetition | None:
        """The last repetition that was started and not passed through."""
        computed = [each for each in self.repetitions if each.started and not each.passed_through]
        return computed[-1] if computed else None

    def __contains__(self, task: str) -> bool:
        group = task.rpartition("/")[0]
        return any(group == repetition.name for repetition in self.repetitions)


def loops(record: RunRecord) -> list[Loop]:
    """The repeated subgraphs of a run, in order."""
    found: dict[str, dict[int, Repetition]] = {}
    for path, task in record.tasks.items():
        group, _, name = path.rpartition("/")
        if match := _GROUP.fullmatch(group):
            numbered = found.setdefault(match[1], {})
            numbered.setdefault(int(match[2]), Repetition(group)).tasks[name] = task
    return [Loop(name, [of[i] for i in sorted(of)]) for name, of in found.items() if 0 in of]


def outside(record: RunRecord) -> dict[str, TaskRecord]:
    """The tasks that are in no repetition, in the order of the run."""
    every = loops(record)
    return {name: task for name, task in record.tasks.items() if not any(name in loop for loop in every)}


def origins(record: RunRecord, loop: Loop) -> list[tuple[str, str]]:
    """Return (task, output) where the artifacts that other tasks take from a loop were first made.

    A repetition may pass on what an earlier one made, or what the loop started from. A copy keeps its content digest,
    so the first output of the run with the same digest is the origin. Empty until the last repetition is done.
    """
    found = {}
    for name, task in record.tasks.items():
        if name in loop:
            continue
        for given in task.inputs.values():
            made = record.tasks.get(given.task, TaskRecord()).outputs.get(given.output)
            if given.task in loop and made and made.digest:
                found[made.digest] = next(origin for origin, digest in _digests(record) if digest == made.digest)
    return list(dict.fromkeys(found.values()))


def _digests(record: RunRecord) -> Iterator[tuple[tuple[str, str], str]]:
    for name, task in record.tasks.items():
        for key, output in task.outputs.items():
            yield (name, key), output.digest


def final_artifacts(record: RunRecord) -> list[str]:
    """Return the paths, in the run folder, of the results: artifacts made of others that no other task takes."""
    taken = {(given.task, given.output) for task in record.tasks.values() for given in task.inputs.values()}
    return [
        output.path
        for name, task in outside(record).items()
        for key, output in task.outputs.items()
        if task.state == "done" and not task.skipped and task.inputs
        if output.is_artifact and (name, key) not in taken
    ]


def selected(record: RunRecord, loop: Loop) -> list[str]:
    """Names of the repetitions whose artifacts the other tasks use: at most one in a loop that selects a model."""
    groups = {task.rpartition("/")[0] for task, _ in origins(record, loop)}
    return [repetition.name for repetition in loop.repetitions if repetition.name in groups]


def started_from(record: RunRecord, loop: Loop) -> list[str]:
    """`TASK/OUTPUT` of what the loop passes on although it was made before the loop: no repetition was selected."""
    return [f"{task}/{output}" for task, output in origins(record, loop) if task not in loop]


def any_repetition(name: str) -> str:
    """Put a star for the number of the repetition: `em-1/cluster` -> `em-*/cluster`."""
    return re.sub(r"^(.+)-\d+/", r"\1-*/", name)
