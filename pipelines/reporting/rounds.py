"""What each EM round of a run reached: the table at the end of a run and in its report."""

import re
from dataclasses import dataclass, field

from pipelines.run_folder.record import RunRecord, TaskRecord

START = "the model the loop started from"
"""What is handed on in place of a round where a segmentor of the user's was better than all of them."""
SCORED_ON_TRAINING_LABELS = "on the images that were drawn for it: scored_on_training_labels"
"""Of scores where no labelled image is left that was not learned from."""


@dataclass
class EmRound:
    """One nested round of a run, its tasks by stage."""

    name: str
    tasks: dict[str, TaskRecord] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """s, all its tasks together."""
        return sum(task.seconds for task in self.tasks.values())

    @property
    def skipped(self) -> bool:
        """Whether its training passed through because the loop had converged before."""
        return bool(self.tasks.get("train_segmentor", TaskRecord()).skipped)

    @property
    def agreement(self) -> float | None:
        """Mean Dice of this round's pseudo-masks with the last round's; None in the first round and before it ran."""
        value = self.tasks.get("refine_masks", TaskRecord()).values.get("agreement")
        return None if value is None or self.name.endswith("-0") or self.skipped else float(value)

    @property
    def forced(self) -> bool:
        """Whether it was handed on as was asked for, though it is not better than what was best before."""
        gate = self.tasks.get("select_model", TaskRecord())
        return gate.metrics.get("accepted") == 0 and bool(gate.parameters.get("keep_worse"))

    def score(self, *names: str) -> float | None:
        """The first of these metrics that `evaluate` reported, or None."""
        metrics = self.tasks.get("evaluate", TaskRecord()).metrics
        return next((metrics[name] for name in names if name in metrics), None)

    @property
    def dice(self) -> float | None:
        """Pixel Dice on the labelled images."""
        return self.score("dice")

    @property
    def f1(self) -> float | None:
        """F1 of instances at IoU 0.5 on the labelled images."""
        return self.score("f1", "f1_50", "f1_0.5")


def rounds(record: RunRecord) -> list[EmRound]:
    """The EM rounds of a run, in order."""
    found: dict[str, EmRound] = {}
    for path, task in record.tasks.items():
        group = path.rpartition("/")[0]
        if re.fullmatch(r"em-\d+", group):
            found.setdefault(group, EmRound(group)).tasks[task.stage] = task
    return list(found.values())


def handed_on(record: RunRecord) -> str | None:
    """Name of the round whose segmentor the run hands on, START where none is better; None where no gate has spoken."""
    names = {number: em.name for number, em in enumerate(rounds(record))}
    last = None
    for em in rounds(record):
        last = em.tasks.get("select_model", TaskRecord()).values.get("best_round", last)
    return None if last is None else names.get(int(last), START)


def averaged(record: RunRecord, name: str | None) -> bool:
    """Whether the round of this name was handed on with its weights averaged with earlier rounds'."""
    gates = [em.tasks["select_model"] for em in rounds(record) if em.name == name and "select_model" in em.tasks]
    return any(gate.metrics.get("averaged") == 1 for gate in gates)


def final_scores(record: RunRecord) -> dict[str, float]:
    """Metrics of what was handed on, by the graph's last `evaluate`; else of the last round that was scored."""
    scored = [task.metrics for name, task in record.tasks.items() if name == "evaluate" and "dice" in task.metrics]
    scored += [em.tasks["evaluate"].metrics for em in reversed(rounds(record)) if em.dice is not None]
    return scored[0] if scored else {}


def scored_on_training_labels(record: RunRecord) -> bool:
    """Whether the run's scores are on images whose labels the loop learned from."""
    return any(
        task.stage == "evaluate" and task.metrics.get("scored_on_training_labels") == 1
        for task in record.tasks.values()
    )


def ending(record: RunRecord) -> str:
    """Why the loop ended, and where no round is handed on, what is; empty where it has not, or has no gates."""
    why = _why_it_ended(record)
    return f"{why} Handed on: {START}." if why and handed_on(record) == START else why


def _why_it_ended(record: RunRecord) -> str:
    judged = [
        em
        for em in rounds(record)
        if (gate := em.tasks.get("select_model")) and gate.state == "done" and not em.skipped
    ]
    if not judged:
        return ""
    last = judged[-1]
    gate, best = last.tasks["select_model"], handed_on(record)
    if not gate.values.get("done"):
        every = len(judged) == len(rounds(record))
        return f"The loop ended with {last.name}, the last one asked for; more may help: --set rounds." if every else ""
    if gate.values.get("ending") == "converged":
        agreement = "" if last.agreement is None else f": agreement {last.agreement:.3f}"
        return f"The loop ended with {last.name}, whose pseudo-masks are nearly those of the round before{agreement}."
    if gate.values.get("ending") == "no better":
        than = "the model it started from" if best == START else best
        return f"The loop ended with {last.name}: no round was better than {than}."
    if gate.values.get("ending") == "drift":
        return f"The loop ended with {last.name}: its cells cover so much more or less than before: it was not trusted."
    return f"The loop ended with {last.name}."  # a run of before gates said why


def shipped(record: RunRecord) -> str:
    """What became of the exported model, in a sentence; empty where none was exported."""
    found = [task for task in record.tasks.values() if task.stage == "export_model" and task.state == "done"]
    if not found or "exported" not in found[0].outputs:
        return ""
    folder, metrics = found[0].outputs["exported"].path, found[0].metrics
    if not metrics.get("accepted"):
        return f"Not every exported form of the model was let out, since one differs from the weights: {folder}"
    close = f"cells agree with F1 {metrics['onnx_f1']:.3f}" if "onnx_f1" in metrics else "features agree"
    return f"The model for use elsewhere, compared with the weights ({close}): {folder}"


def round_table(record: RunRecord) -> str:
    """The rounds as text for a terminal; empty where the run has none."""
    rows = [["round", "Dice", "F1 at 0.5", "agreement", "seconds", ""]]
    best = handed_on(record)
    for em in rounds(record):
        if all(task.state == "waiting" for task in em.tasks.values()):
            continue  # the run ended before it
        numbers = [_number(value) for value in (em.dice, em.f1, em.agreement)]
        note = "handed on, though not better" if em.forced else "handed on"
        note = "over before: passed through" if em.skipped else note if em.name == best else ""
        rows.append([em.name, *numbers, f"{em.seconds:.1f}", note])
    if len(rows) == 1:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(_pad(cell, widths[i], i) for i, cell in enumerate(row)).rstrip() for row in rows]
    told = [f"Dice and F1 are {SCORED_ON_TRAINING_LABELS}."] if scored_on_training_labels(record) else []
    told += [end] if (end := ending(record)) else []
    return "\n".join([lines[0], "  ".join("-" * width for width in widths[:-1]), *lines[1:], *told])


def _pad(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if 1 <= column <= 4 else cell.ljust(width)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
