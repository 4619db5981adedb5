"""Weights averaged over rounds: a model soup (Wortsman et al. 2022, arXiv:2203.05482).

The rounds of one loop train one network on, so their weights lie in one basin, and what lies between two of them is a
segmentor as well. It makes fewer of the mistakes that only one of them makes: where a set is of several kinds, a round
that is better on the whole has often become worse on the rarest.
"""

from pathlib import Path

from shared.models.config import SegmentorConfig
from shared.models.files import CARD, load_config, load_state, save_model


def alike(one: SegmentorConfig, other: SegmentorConfig) -> bool:
    """Whether the two are of the same network."""
    return (one.architecture, one.input.channels) == (other.architecture, other.input.channels)


def write_average(candidate: Path, incumbent: Path, share: float, folder: Path) -> bool:
    """Write into `folder` a segmentor with `share` of the candidate's weights, the rest the incumbent's.

    All else is the candidate's. Returns False, and writes nothing, where the two are not of the same network.
    """
    config = load_config(candidate, SegmentorConfig)
    if not alike(config, load_config(incumbent, SegmentorConfig)):
        return False
    new, old = load_state(candidate), load_state(incumbent)
    state = {name: old[name].lerp(new[name], share) for name in new}
    card = (candidate / CARD).read_text(encoding="utf-8").rstrip()
    card += f"\n- Weights: {share:.0%} this round's, the rest those of the rounds before that were handed on\n"
    save_model(folder, state, config, card)
    return True
