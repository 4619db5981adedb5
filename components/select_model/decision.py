"""Decide whether the candidate is selected, and whether the EM loop ends."""

from dataclasses import dataclass
from typing import Literal

from components.select_model.component import SelectModel
from components.select_model.criteria import (
    MIN_EDGE_GAIN,
    MIN_EDGE_GAIN_REFINED,
    MIN_FOREGROUND_SHARE,
    Assessment,
    area_drifts,
    area_drifts_unlabelled,
    is_better,
)
from components.select_model.evaluation_set import EvaluationSet
from shared.models.config import SegmentorConfig
from shared.models.files import load_config

Outcome = Literal[
    "first", "first, drift", "better", "not better", "gain too small", "drift", "drift on unlabelled images"
]
StopReason = Literal["", "converged", "no better", "drift"]


@dataclass(frozen=True)
class Comparison:
    """A candidate and its incumbent, assessed on the same images."""

    stage: SelectModel
    candidate: Assessment
    incumbent: Assessment | None
    """None: there is no segmentor to compare with."""
    refined: bool
    """Whether the borders of the first masks were refined to the local means, so that the edge score rises anyway."""

    @classmethod
    def of(cls, stage: SelectModel, candidate: Assessment, incumbent: Assessment | None) -> "Comparison":
        """Compare the models of the stage."""
        refinement = load_config(stage.candidate, SegmentorConfig).postprocessing.border_refinement
        refined = refinement == "means" and stage.incumbent_round >= 0 and not stage.use_labels
        return cls(stage, candidate, incumbent, refined)

    @property
    def min_edge_gain(self) -> float:
        """Ratio of edge scores from which on the candidate is better."""
        return MIN_EDGE_GAIN_REFINED if self.refined else MIN_EDGE_GAIN

    @property
    def initial_area(self) -> float:
        """Foreground share of the first proposals, of a segmentor that the loop started from, or of the first one."""
        if self._has_initial_area:
            return self.stage.initial_area
        if self.incumbent is None and self.stage.proposed_area > MIN_FOREGROUND_SHARE:
            return self.stage.proposed_area
        return (self.incumbent or self.candidate).foreground_share

    @property
    def _has_initial_area(self) -> bool:
        return self.stage.round_number > 0 and self.stage.initial_area > MIN_FOREGROUND_SHARE

    @property
    def drifted(self) -> bool:
        """Whether the foreground drifts from the incumbent's or from the first proposals'.

        Where labels are used, they decide, and nothing counts as drift.
        """
        if self.stage.use_labels:
            return False
        references = [self.initial_area, *([self.incumbent.foreground_share] if self.incumbent else [])]
        return any(area_drifts(self.candidate.foreground_share, reference) for reference in references)

    def outcome(self) -> Outcome:
        """Decide on the candidate: "first" and "better" accept it, and so does "first, drift": there is no other."""
        if self.incumbent is None:
            return "first, drift" if self.drifted else "first"
        if is_better(self.candidate, self.incumbent, self.min_edge_gain):
            if self.stage.use_labels:
                return "drift on unlabelled images" if self._drifts_unlabelled(self.incumbent) else "better"
            return "drift" if self.drifted else "better"
        if self.drifted:
            return "drift"
        rises = self.candidate.dice is None and self.candidate.edge_score > self.incumbent.edge_score
        return "gain too small" if rises else "not better"

    def _drifts_unlabelled(self, incumbent: Assessment) -> bool:
        """Whether a candidate that would replace the user's segmentor drifts on images without labels.

        A segmentor trained on a few labelled images may be right on these alone.
        """
        stage = self.stage
        others = EvaluationSet.unlabelled(stage) if stage.incumbent_round < 0 else None
        if others is None:
            return False
        new = others.assess(stage.candidate, "candidate, unlabelled images").assessment.foreground_share
        old = others.assess(stage.incumbent, "incumbent, unlabelled images").assessment.foreground_share
        return area_drifts_unlabelled(new, old, self.candidate.foreground_share, incumbent.foreground_share)

    def stop_reason(self, accepted: bool, best_round: int) -> StopReason:
        """Decide whether the loop ends here; empty while it continues."""
        stage = self.stage
        if self.drifted:
            return "drift"
        if stage.agreement >= stage.stop_agreement and not accepted:
            return "converged"
        return "no better" if stage.round_number - best_round >= (1 if self.refined else stage.patience) else ""
