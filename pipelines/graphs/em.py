"""Build an EM round as a nested pipeline: features, clusters, pseudo-labels (E-step), segmentor (M-step), selection."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from kfp import dsl

from components.cluster.component import Cluster
from components.evaluate.component import Evaluate
from components.extract_features.component import ExtractFeatures
from components.refine_masks.component import RefineMasks
from components.select_model.component import SelectModel
from components.train_segmentor.component import TrainSegmentor
from pipelines.config import Config
from pipelines.kubeflow.adapter import step

EM = "em"
"""Group of the rounds in a config: `em/cluster` is the task `cluster` in every round, `em-1/cluster` in round 1."""
MAX_SCORED = "20"
"""Labelled images that a round is scored on, unless `max_images` is set."""


class Round(NamedTuple):
    """What a round passes to the next one.

    `model` and `labels` are the last round's, even if the selection rejects them: a worse round may lead to a better
    one. `best` is the selected model.
    """

    model: dsl.Model
    labels: dsl.Dataset
    best: dsl.Model
    best_round: int
    initial_area: float
    done: bool
    """Whether the loop is over: the stages then pass through at once, which needs no condition in the graph."""


def em_rounds(config: Config) -> list[Any]:
    """Build the nested pipeline of each round: `em-0`, `em-1`, ...

    Call it outside any other pipeline: kfp does not define a pipeline inside another one.
    """
    names = [f"{EM}-{number}" for number in range(config.rounds)]
    return [_em_round(own, name) for own, name in zip(config.groups(EM, names), names, strict=True)]


def run_rounds(rounds: Sequence[Any], chosen: dsl.PipelineTask, no_labels: Any, encoder: Any, **settings: Any) -> Round:
    """Add the rounds to the pipeline, each with what the one before passes on; return what the last one does.

    rounds: of `em_rounds`; chosen: task of `sample_images`; settings: run-time parameters of every round.
    """
    after = Round(encoder, no_labels, encoder, best_round=-1, initial_area=0.0, done=False)
    given = {"images": chosen.outputs["learned"], "sample": chosen.outputs["sample"], "truth": chosen.outputs["labels"]}
    given |= settings
    for number, em in enumerate(rounds):
        task = em(**given, **after._asdict(), round_number=number)
        after = Round(**{name: task.outputs[name] for name in Round._fields})
    return after


def _em_round(config: Config, name: str) -> Any:
    add = partial(step, config, nested_in=name)

    @dsl.pipeline(name=name, description="One EM round on the pseudo-labels.")
    def em(
        images: dsl.Input[dsl.Dataset],
        sample: dsl.Input[dsl.Dataset],
        truth: dsl.Input[dsl.Dataset],
        model: dsl.Input[dsl.Model],
        labels: dsl.Input[dsl.Dataset],
        best: dsl.Input[dsl.Model],
        best_round: int,
        initial_area: float,
        done: bool,
        round_number: int,
        k: str,
        foreground: str,
        use_labels: int,
        train_steps: int,
        stop_agreement: float,
        seed: int,
    ) -> Round:
        labelled = {"images": images, "truth": truth, "use_labels": use_labels}
        features = add(ExtractFeatures, images=images, model=model, skip=done).outputs["features"]
        proposed: dict[str, Any] = {"k": k, "foreground": foreground, "seed": seed}
        clusters = add(Cluster, **labelled, features=features, **proposed, skip=done).outputs["clusters"]
        parted = {"clusters": clusters, "previous": labels, "model": model}
        refined = add(RefineMasks, images=images, **parted, skip=done).outputs
        pseudo = {"images": images, "labels": refined["labels"], "drop_fraction": refined["noise"]}
        schedule: dict[str, Any] = {"steps": train_steps, "seed": seed, "stream": round_number}
        trained = add(TrainSegmentor, **pseudo, **schedule, model=model, skip=done).outputs["segmentor"]
        scored = {**labelled, "images": sample}
        add(Evaluate, **scored, model=trained, defaults={"max_images": MAX_SCORED})
        rounds: dict[str, Any] = {"round_number": round_number, "incumbent_round": best_round}
        areas = {"proposed_area": refined["proposed_area"], "initial_area": initial_area}
        stop = {"agreement": refined["agreement"], "stop_agreement": stop_agreement, **areas}
        compared = {"candidate": trained, "incumbent": best}
        selected = add(SelectModel, **labelled, **compared, **rounds, **stop, skip=done).outputs
        passed = (selected[name] for name in ("best", "best_round", "initial_area_out", "done"))
        return Round(trained, refined["labels"], *passed)

    return em
