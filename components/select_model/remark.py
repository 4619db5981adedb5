"""Say in a few sentences which model is selected, and why the loop ends."""

from components.select_model.decision import Comparison, Outcome, StopReason

LABELS_ARE_LEARNED = "The loop also learns from the labels used here, so the comparison favours the newer segmentor."


def make_remark(comparison: Comparison, outcome: Outcome, stop_reason: StopReason, *, averaged: bool) -> str:
    """One to three sentences on the outcome, for reports and the terminal."""
    return f"{_selection(comparison, outcome, averaged)} {_ending(comparison, stop_reason)}".rstrip()


def _selection(comparison: Comparison, outcome: Outcome, averaged: bool) -> str:
    stage = comparison.stage
    candidate, incumbent = f"Round {stage.round_number}", _incumbent(comparison)
    if outcome == "first":
        return f"{candidate} is the first segmentor and selected."
    if outcome == "first, drift":
        shares = comparison.candidate.foreground_share, comparison.initial_area
        now, before = (f"{100 * share:.1f} %" for share in shares)
        return (
            f"{candidate} is the first segmentor and selected, but do not trust it: its foreground share is {now}, and "
            f"{before} in the pseudo-masks that it learned from."
        )
    if outcome == "better":
        weights = f"; {100 * stage.candidate_weight:.0f} % of the weights are its own" if averaged else ""
        return f"{candidate} is better than {incumbent} and selected{weights}."
    shortcoming = f"{candidate} {_shortcoming(comparison, outcome)}."
    if stage.always_accept:
        return f"{shortcoming} It is selected all the same (--always_accept)."
    return f"{shortcoming} {incumbent[0].upper()}{incumbent[1:]} remains selected."


def _shortcoming(comparison: Comparison, outcome: Outcome) -> str:
    """What is wrong with the candidate, as the predicate of a sentence."""
    incumbent, candidate = comparison.incumbent, comparison.candidate
    assert incumbent is not None
    if outcome == "gain too small":
        gain, wanted = candidate.edge_score / max(incumbent.edge_score, 1e-9) - 1, comparison.min_edge_gain - 1
        return f"raises the edge score by {100 * gain:.1f} %, less than the required {100 * wanted:.0f} %"
    if outcome == "drift":
        shares = candidate.foreground_share, incumbent.foreground_share, comparison.initial_area
        now, before, first = (f"{100 * share:.1f} %" for share in shares)
        return f"drifts: its foreground share is {now}, after {before} and at first {first}"
    if outcome == "drift on unlabelled images":
        return "agrees better with the labels, but its foreground drifts on images without labels"
    return f"is not better than {_incumbent(comparison)}"


def _ending(comparison: Comparison, stop_reason: StopReason) -> str:
    stage = comparison.stage
    if stop_reason == "converged":
        return f"The loop ends: the pseudo-masks have converged (Dice {stage.agreement:.3f} with the last round's)."
    if stop_reason == "drift":
        return "The loop ends: the foreground drifts."
    if stop_reason == "no better":
        rounds = stage.round_number - stage.incumbent_round
        return (
            f"The loop ends: no round was better than {_incumbent(comparison)} for {rounds} round{'s' * (rounds != 1)}."
        )
    return ""


def _incumbent(comparison: Comparison) -> str:
    number = comparison.stage.incumbent_round
    return f"round {number}" if number >= 0 else "the model that the loop started from"
