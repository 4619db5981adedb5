"""The quality table: which variants run, and what the summary says of runs."""

import argparse

import pytest
import quality
from quality_table import NO_EM, Row, head, summary

from components.__main__ import declaration


def row(name: str, variant: str, kind: str, dice: float, **given) -> Row:
    scores = dict.fromkeys(("f1", "ap50", "seg"), 0.5) | {"dice": dice}
    given = {"seed": "0", "rounds": [], "chosen": None, "seconds": 1.0} | given
    return Row(name=name, variant=variant, kind=kind, scores=scores, **given)


def cells(text: str, *start: str) -> list[str]:
    """The cells of the one line of a table that begins so."""
    found = [line for line in text.splitlines() if line.startswith(f"| {' | '.join(start)} |")]
    assert len(found) == 1
    return [cell.strip() for cell in found[0].strip("|").split("|")]


def test_every_variant_by_name_and_all_of_them():
    assert quality.variants("all") == list(quality.VARIANTS) and "default" in quality.VARIANTS
    assert quality.variants("no edges,no refinement") == ["no edges", "no refinement"]
    with pytest.raises(argparse.ArgumentTypeError, match="'no edge' is none of: all, default"):
        quality.variants("no edge")


@pytest.mark.parametrize("variant", quality.VARIANTS)
def test_what_a_variant_sets_is_a_field_of_a_stage(variant):
    for flag, setting in zip(*[iter(quality.VARIANTS[variant])] * 2, strict=True):
        path, _ = setting.split("=")
        if flag == "--set" and "." in path:
            stage, field = path.split(".")
            assert field in declaration(stage).model_fields


def test_the_summary_compares_with_the_first_proposal_and_with_the_kind_alone():
    found = [row("tissue", "default", "tissue", dice, seed=seed) for dice, seed in ((0.86, "0"), (0.88, "1"))]
    found += [row("tissue", NO_EM, "tissue", 0.9), row("mixed", "default", "tissue", 0.865)]
    found += [row("mixed", "default", "all", 0.8), row("mixed", NO_EM, "all", 0.75)]
    text = summary(found)
    columns = cells(text, "set")
    places = [columns.index(name) for name in ("seeds", "dice", "Dice to proposal", "Dice to kind alone")]

    def told(*start: str) -> list[str]:
        return [cells(text, *start)[place] for place in places]

    assert told("tissue", "default") == ["2", "0.870 ± 0.010", "-0.030", ""]
    assert told("tissue", NO_EM) == ["1", "0.900 ± 0.000", "", ""]
    assert told("mixed", "default", "tissue") == ["1", "0.865 ± 0.000", "", "-0.005"]
    assert told("mixed", "default", "all") == ["1", "0.800 ± 0.000", "+0.050", ""]
    assert "below the set's own first proposal: 1 of 2.\ntissue, default, tissue: -0.030" in text


def test_the_summary_names_the_runs_whose_round_was_not_the_best():
    rounds = [(0.70, 0.4), (0.76, 0.5), (0.755, 0.6)]
    given = [{"seed": str(chosen), "rounds": rounds, "chosen": chosen} for chosen in range(3)]
    found = [row("usiigaci", "default", "labelled", 0.7, **settings) for settings in given]
    text = summary(found)
    assert "within a point of its Dice: 2 of 3 runs." in text
    assert text.endswith("The others:\nusiigaci, default, seed 0: em-0 (0.700) instead of em-1 (0.760)")
    assert "The others" not in summary(found[1:]) and "best round" not in summary([row("a", "b", "c", 0.5)])


def test_a_rows_line_fits_below_the_head():
    text = row("usiigaci", "default", "labelled", 0.7, rounds=[(0.7, 0.4)], chosen=0).text()
    assert len(text.split("|")) == len(head().splitlines()[0].split("|")) and "em-0" in text
