"""Average the weights of rounds, as in model soups (Wortsman et al. 2022, arXiv:2203.05482).

The rounds of a loop continue the training of one network, so their weights lie in one basin of the loss, and a weighted
mean of two rounds is a segmentor as well. It avoids some mistakes that only one of them makes: on a mixed set, a round
that is better overall is often worse on the rarest kind of image.
"""

from pathlib import Path

from shared.models.config import SegmentorConfig
from shared.models.files import CARD, load_config, load_state, save_model


def same_network(one: SegmentorConfig, other: SegmentorConfig) -> bool:
    """Whether two segmentors have the same parameters: architecture and channels."""
    return (one.architecture, one.input.channels) == (other.architecture, other.input.channels)


def write_average(candidate: Path, incumbent: Path, candidate_weight: float, folder: Path) -> bool:
    """Write into `folder` a segmentor with the mean of both weights, all else being the candidate's.

    candidate_weight: the candidate's share in the mean, in (0, 1). Returns False, and writes nothing, if the networks
    differ.
    """
    config = load_config(candidate, SegmentorConfig)
    if not same_network(config, load_config(incumbent, SegmentorConfig)):
        return False
    new, old = load_state(candidate), load_state(incumbent)
    state = {name: old[name].lerp(new[name], candidate_weight) for name in new}
    card = (candidate / CARD).read_text(encoding="utf-8").rstrip()
    card += f"\n- Weights: {candidate_weight:.0%} of this round, the rest of the rounds selected before\n"
    save_model(folder, state, config, card)
    return True
