"""One EM round as a nested pipeline: features, clusters, pseudo-masks (E-step), segmentor (M-step), gate, scores."""

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

SCORED = 20
"""Labelled images that a round is scored on, at most: enough to see how the rounds compare."""


class Round(NamedTuple):
    """What a round hands to the next one."""

    model: dsl.Model
    labels: dsl.Dataset
    best: dsl.Model
    best_round: int
    first_area: float
    done: bool


def em_round(config: Config) -> Any:
    """The nested pipeline. Call it outside any other pipeline: kfp does not define one inside another.

    Round 0 gets the encoder twice, an empty LabelSet, -1, 0 and False; round r > 0 what round r-1 returned. Once `done`
    is true the stages pass through at once, which needs no condition in the graph. `model` and `labels` are the last
    round's, whatever the gate says: a round that is no better may lead to one that is. `best` is what the gate kept.
    """

    @dsl.pipeline(name="em-round", description="One EM round on the pseudo-masks.")
    def em(
        images: dsl.Input[dsl.Dataset],
        truth: dsl.Input[dsl.Dataset],
        model: dsl.Input[dsl.Model],
        labels: dsl.Input[dsl.Dataset],
        best: dsl.Input[dsl.Model],
        best_round: int,
        first_area: float,
        done: bool,
        number: int,
        k: int,
        use_labels: int,
        train_steps: int,
        stop_agreement: float,
        seed: int,
    ) -> Round:
        features = step(
            config, ExtractFeatures, images=images, truth=truth, model=model, use_labels=use_labels, skip=done
        ).outputs["features"]
        clusters = step(
            config,
            Cluster,
            images=images,
            features=features,
            truth=truth,
            k=k,
            use_labels=use_labels,
            seed=seed,
            skip=done,
        ).outputs["clusters"]
        refined = step(config, RefineMasks, images=images, clusters=clusters, previous=labels, skip=done)
        trained = step(
            config,
            TrainSegmentor,
            images=images,
            labels=refined.outputs["labels"],
            model=model,
            agreement=refined.outputs["agreement"],
            steps=train_steps,
            stop_agreement=stop_agreement,
            seed=seed,
            number=number,
            skip=done,
        )
        segmentor = trained.outputs["segmentor"]
        gate = step(
            config,
            SelectModel,
            images=images,
            truth=truth,
            candidate=segmentor,
            incumbent=best,
            number=number,
            incumbent_round=best_round,
            first_area=first_area,
            converged=trained.outputs["converged"],
            use_labels=use_labels,
            skip=done,
        )
        step(
            config,
            Evaluate,
            images=images,
            truth=truth,
            model=segmentor,
            use_labels=use_labels,
            most_images=SCORED,
        )
        return Round(
            segmentor,
            refined.outputs["labels"],
            gate.outputs["best"],
            gate.outputs["best_round"],
            gate.outputs["first_area_out"],
            gate.outputs["done"],
        )

    return em
