"""One EM round as a nested pipeline: features, clusters, pseudo-masks (E-step), segmentor (M-step), selection, scores."""

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

SCORED = "20"
"""Labelled images that a round is scored on, at most: enough to see how the rounds compare."""


class Round(NamedTuple):
    """What a round passes to the next one."""

    model: dsl.Model
    labels: dsl.Dataset
    best: dsl.Model
    best_round: int
    initial_area: float
    done: bool


def em_round(config: Config) -> Any:
    """The nested pipeline. Call it outside any other pipeline: kfp does not define one inside another.

    Round 0 gets the encoder twice, an empty LabelSet, -1, 0 and False; round r > 0 what round r-1 returned. Once `done`
    is true the stages pass through at once, which needs no condition in the graph. `model` and `labels` are the last
    round's, whatever the selection says: a round that is no better may lead to one that is. `best` is what was selected.
    """

    @dsl.pipeline(name="em-round", description="One EM round on the pseudo-masks.")
    def em(
        images: dsl.Input[dsl.Dataset],
        truth: dsl.Input[dsl.Dataset],
        model: dsl.Input[dsl.Model],
        labels: dsl.Input[dsl.Dataset],
        best: dsl.Input[dsl.Model],
        best_round: int,
        initial_area: float,
        done: bool,
        round_number: int,
        k: str,
        use_labels: int,
        train_steps: int,
        stop_agreement: float,
        seed: int,
    ) -> Round:
        labelled = {"images": images, "truth": truth, "use_labels": use_labels}
        features = step(config, ExtractFeatures, **labelled, model=model, skip=done).outputs["features"]
        clusters = step(config, Cluster, **labelled, features=features, k=k, seed=seed, skip=done).outputs["clusters"]
        refined = step(config, RefineMasks, images=images, clusters=clusters, previous=labels, skip=done)
        trained = step(
            config,
            TrainSegmentor,
            images=images,
            labels=refined.outputs["labels"],
            model=model,
            steps=train_steps,
            drop_fraction=refined.outputs["noise"],
            seed=seed,
            stream=round_number,
            skip=done,
        )
        selected = step(
            config,
            SelectModel,
            **labelled,
            candidate=trained.outputs["segmentor"],
            incumbent=best,
            round_number=round_number,
            incumbent_round=best_round,
            initial_area=initial_area,
            agreement=refined.outputs["agreement"],
            stop_agreement=stop_agreement,
            skip=done,
        )
        step(config, Evaluate, **labelled, model=trained.outputs["segmentor"], max_images=SCORED)
        return Round(
            trained.outputs["segmentor"],
            refined.outputs["labels"],
            selected.outputs["best"],
            selected.outputs["best_round"],
            selected.outputs["initial_area_out"],
            selected.outputs["done"],
        )

    return em
