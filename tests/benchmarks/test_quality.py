"""The quality table: the variants, the summary, and the rows that are kept."""

import argparse

import numpy as np
import pytest
import quality
from quality_rows import Kept, Row, dated, version
from quality_scores import count_centroids
from quality_sets import prepare
from quality_table import BEGIN, END, NO_EM, head, insert, summary, text

from components.registry import declaration
from shared.artifacts.annotation import Annotation


def row(name: str, variant: str, kind: str, dice: float, **given) -> Row:
    scores = dict.fromkeys(("f1", "ap50", "seg"), 0.5) | {"dice": dice}
    given = {"scores": scores, "seed": "0", "rounds": [], "chosen": None, "seconds": 1.0} | given
    return Row(name=name, variant=variant, kind=kind, **given)


def cells(text: str, *start: str) -> list[str]:
    """The cells of the one line of a table that begins so."""
    found = [line for line in text.splitlines() if line.startswith(f"| {' | '.join(start)} |")]
    assert len(found) == 1
    return [cell.strip() for cell in found[0].strip("|").split("|")]


def test_every_variant_by_name_and_all_of_them():
    assert quality.variants("all") == list(quality.VARIANTS) and "default" in quality.VARIANTS
    assert quality.variants("no edges,no refinement") == ["no edges", "no refinement"]
    with pytest.raises(argparse.ArgumentTypeError, match="'no edge': no such variant; one of: all, default"):
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
    assert "below the first proposal of the set: 1 of 2.\ntissue, default, tissue: -0.030" in text


def test_the_summary_names_the_runs_whose_round_was_not_the_best():
    rounds = [(0.70, 0.4), (0.76, 0.5), (0.755, 0.6)]
    given = [{"seed": str(chosen), "rounds": rounds, "chosen": chosen} for chosen in range(3)]
    found = [row("usiigaci", "default", "labelled", 0.7, **settings) for settings in given]
    text = summary(found)
    assert "within a point of its Dice: 2 of 3 runs." in text
    assert text.endswith("The others:\nusiigaci, default, seed 0: em-0 (0.700) instead of em-1 (0.760)")
    assert "The others" not in summary(found[1:]) and "best round" not in summary([row("a", "b", "c", 0.5)])


def test_a_rows_line_fits_below_the_head():
    told = text(row("usiigaci", "default", "labelled", 0.7, rounds=[(0.7, 0.4)], chosen=0, seconds=90, cores=2))
    assert len(told.split("|")) == len(head().splitlines()[0].split("|")) and "em-0 | 3.0 |" in told


def test_rows_are_kept_by_run_and_count_only_for_the_code_that_made_them(tmp_path):
    kept = Kept(tmp_path / "rows.jsonl")
    mixed = [row("mixed", "default", kind, 0.8) for kind in ("tissue", "fluo")]
    kept.replace(dated(mixed, 1))
    kept.replace([row("tissue", "default", "tissue", 0.7, version="of other code")])
    kept = Kept(tmp_path / "rows.jsonl")
    assert [one.kind for one in kept.of("mixed", "default", "0")] == ["fluo", "tissue"]
    assert kept.current()[0].cores == 1 and kept.current()[0].version == version()
    assert not kept.of("tissue", "default", "0") and not kept.of("mixed", "default", "1")
    kept.replace(dated([row("mixed", "default", "fluo", 0.9)], 2))
    assert [one.scores["dice"] for one in Kept(tmp_path / "rows.jsonl").rows] == [0.9, 0.7]


def test_the_table_takes_its_place_in_a_page_and_leaves_the_rest(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nof yesterday\n{END}\nafter\n")
    rows = dated([row("tissue", "default", "tissue", 0.876)], 2)
    insert(page, rows)
    written = page.read_text()
    assert written.startswith(f"before\n{BEGIN}\n{rows[0].machine}.\n") and written.endswith(f"{END}\nafter\n")
    assert text(rows[0]) in written and "of yesterday" not in written
    insert(page, rows)
    assert page.read_text() == written
    page.write_text("no place\n")
    insert(page, rows)
    assert page.read_text() == "no place\n"


def test_runs_at_once_share_the_cores_evenly(monkeypatch):
    monkeypatch.setattr(quality.os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 6})
    parts = quality.shares(2)
    assert [parts.get(), parts.get()] == [{0, 1}, {2, 3, 6}]
    with pytest.raises(SystemExit, match="--at-once: 6 runs need as many cores; at most 5"):
        quality.shares(6)


def test_a_box_is_found_once_where_it_holds_the_centroid_of_one_instance():
    labels = np.zeros((40, 60), np.uint16)
    labels[2:8, 2:8] = 1  # in the first box
    labels[20:24, 2:6], labels[28:32, 2:6] = 2, 3  # two parts in the second box
    labels[10:14, 40:44] = 4  # in no box
    boxes = [
        Annotation("cell", box, 1.0) for box in ((0.0, 0.0, 10.0, 10.0), (0.0, 18.0, 8.0, 16.0), (50.0, 0.0, 5.0, 5.0))
    ]
    counts, found = count_centroids(boxes, labels)
    assert counts.tolist() == [1, 2, 0] and found == 4


def test_a_centroid_in_two_boxes_belongs_to_the_nearer_one():
    labels = np.zeros((40, 40), np.uint16)
    labels[8:12, 8:12] = 1
    boxes = [Annotation("cell", box, 1.0) for box in ((0.0, 0.0, 30.0, 30.0), (5.0, 5.0, 12.0, 12.0))]
    assert count_centroids(boxes, labels)[0].tolist() == [0, 1]


def test_a_set_of_boxes_has_no_dice_in_the_table():
    found = [row("bccd", "default", "bccd", 0.0, scores={"f1": 0.7, "found_once": 0.8}, seed=seed) for seed in "01"]
    assert cells(text(found[0]), "bccd", "default", "0", "bccd")[4:6] == ["", "0.700"]
    assert cells(summary(found), "bccd", "default", "bccd")[3:6] == ["2", "", "0.700 ± 0.000"]


def test_a_single_image_is_trained_on_and_scored(tmp_path):
    folder = tmp_path / "data" / "nuclei"
    folder.mkdir(parents=True)
    for name in ("00_img.tif", "00_masks.png"):
        (folder / name).write_bytes(b"")
    target = prepare(tmp_path / "data", "nuclei", tmp_path / "images")
    assert sorted(str(path.relative_to(target)) for path in target.rglob("00*")) == [
        "test/nuclei/00_img.tif",
        "test/nuclei/00_masks.png",
        "train/nuclei/00_img.tif",
    ]
