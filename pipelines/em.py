"""One EM round as a nested pipeline: features, clusters, pseudo-masks (E-step), segmentor (M-step), scores."""

from typing import Any, NamedTuple

from kfp import dsl

from components.cluster.component import Cluster
from components.evaluate.component import Evaluate
from components.extract_features.component import ExtractFeatures
from components.refine_masks.component import RefineMasks
from components.train_segmentor.component import TrainSegmentor
from pipelines.adapter import step
from pipelines.config import Config


class Round(NamedTuple):
    """What a round hands to the next one."""

    model: dsl.Model
    labels: dsl.Dataset
    converged: bool


def em_round(config: Config) -> Any:
    """The nested pipeline. Call it outside any other pipeline: kfp does not define one inside another.

    Round 0 gets the encoder, an empty LabelSet and False; round r > 0 what round r-1 returned. Once `converged` is
    true the stages pass through at once, which needs no condition in the graph.
    """

    @dsl.pipeline(name="em-round", description="One EM round on the pseudo-masks.")
    def em(
        images: dsl.Input[dsl.Dataset],
        truth: dsl.Input[dsl.Dataset],
        model: dsl.Input[dsl.Model],
        labels: dsl.Input[dsl.Dataset],
        converged: bool,
        k: int,
        use_labels: int,
        train_steps: int,
        stop_agreement: float,
        seed: int,
    ) -> Round:
        features = step(config, ExtractFeatures, images=images, model=model, skip=converged).outputs["features"]
        clusters = step(
            config,
            Cluster,
            images=images,
            features=features,
            truth=truth,
            k=k,
            use_labels=use_labels,
            seed=seed,
            skip=converged,
        ).outputs["clusters"]
        refined = step(config, RefineMasks, images=images, clusters=clusters, previous=labels, skip=converged)
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
            skip=converged,
        )
        segmentor = trained.outputs["segmentor"]
        step(config, Evaluate, images=images, truth=truth, model=segmentor)
        return Round(segmentor, refined.outputs["labels"], trained.outputs["converged"])

    return em
