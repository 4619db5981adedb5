"""Label images pair by the names that programs and data sets give them."""

from pathlib import Path

import numpy as np
import pytest
from ingest_run import ingest
from label_files import IMAGE, OBJECTS, remarks, same_objects, save


class TestNames:
    @pytest.mark.parametrize(
        "pair",
        [
            ("a.png", "a mask.png"),
            ("a.png", "a.mask.tif"),
            ("a.png", "a.labels.tif"),
            ("a.png", "aMask.tif"),
            ("a.png", "a_mask1.png"),
            ("a.png", "a_masks_refined.png"),
            ("a.png", "a_cp_masks_corrected.png"),
            ("a.png", "a_lbl.png"),
            ("a.png", "a_binary.png"),
            ("a.png", "a_labelIds.png"),
            ("a.png", "a.png_mask.png"),
            ("a.ome.tif", "a.ome_cp_masks.tif"),
            ("img001.png", "mask001.png"),
            ("image.tif", "mask.tif"),
            ("s1/img.png", "s1/label.png"),
            ("s1/s1.png", "s1/mask.png"),
            ("images/a.png", "annotations/a.png"),
            ("images/a.png", "segmentations/a.png"),
            ("imgs/a.png", "lbls/a.png"),
            ("img_dir/a.png", "ann_dir/a.png"),
            ("input/a.png", "target/a.png"),
            ("imagesTr/case1_0000.png", "labelsTr/case1.png"),
            ("images/a.tif", "labels/a_seg.tif"),
            ("images/a.tif", "labels/a-labelled.tif"),
            ("images/a.tif", "labels/a_GT.tif"),
            ("01/t000.tif", "01_AUTO/SEG/man_seg000.tif"),
            ("img_dir/train/a.png", "ann_dir/train/a.png"),
            ("images/train/a.png", "annotations/train/a.png"),
        ],
    )
    def test_pairs(self, tmp_path: Path, pair: tuple[str, str]) -> None:
        save(tmp_path / "in" / pair[0], IMAGE)
        save(tmp_path / "in" / pair[1], OBJECTS)
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        assert [entry.source for entry in outcome.images.entries.values()] == [pair[0]]
        assert [same_objects(outcome.labels.mask(key), OBJECTS) for key in outcome.labels.entries] == [True]

    @pytest.mark.parametrize(
        ("best", "others"),
        [
            ("masks/a_cp_masks.png", ["masks/a_outlines.png", "masks/a_flows.png"]),
            ("labels/a_labels.png", ["labels/a_binary.png"]),
            ("a_cp_masks_corrected.png", ["a_cp_masks.png"]),
            ("a_seg.png", ["a_binary.png"]),
            ("a_bw_labels.png", ["a_bw.png"]),
        ],
    )
    def test_the_best_of_several_label_images(self, tmp_path: Path, best: str, others: list[str]) -> None:
        image = "images/a.png" if "/" in best else "a.png"
        save(tmp_path / "in" / image, IMAGE)
        save(tmp_path / "in" / best, OBJECTS)
        for other in others:
            save(tmp_path / "in" / other, ((OBJECTS == 3) * 255).astype(np.uint8))
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        (key,) = outcome.labels.keys()
        assert list(outcome.sources()) == [image] and same_objects(outcome.labels.mask(key), OBJECTS)

    def test_outlines_alone_are_no_label_image(self, tmp_path: Path) -> None:
        save(tmp_path / "in/images/a.png", IMAGE)
        save(tmp_path / "in/labels/a_outlines.png", OBJECTS)
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        assert not len(outcome.labels) and "left out: no label image" in remarks(outcome)

    @pytest.mark.parametrize("folder", ["", "masks/"])
    @pytest.mark.parametrize("first", ["a_mask1.png", "a_mask.png"])
    def test_numbered_masks_are_objects(self, tmp_path: Path, folder: str, first: str) -> None:
        save(tmp_path / "in" / ("images/a.png" if folder else "a.png"), IMAGE)
        names = [first, *(f"a_mask{number}.png" for number in range(2, 10))]
        for number, name in enumerate(names, 1):
            save(tmp_path / "in" / folder / name, ((number == OBJECTS) * 255).astype(np.uint8))
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        (key,) = outcome.labels.keys()
        assert len(outcome.images) == 1 and same_objects(outcome.labels.mask(key), OBJECTS)

    @pytest.mark.parametrize("name", ["a_dP.tif", "a_cp_output.png", "a_flows.tif"])
    def test_other_results_of_cellpose_are_no_images(self, tmp_path: Path, name: str) -> None:
        save(tmp_path / "in/a.png", IMAGE)
        save(tmp_path / "in" / name, IMAGE)
        assert list(ingest(tmp_path / "in", tmp_path / "out").sources()) == ["a.png"]

    def test_the_image_of_the_same_folder_comes_first(self, tmp_path: Path) -> None:
        for name in ("P/a.tif", "p/a.tif"):
            save(tmp_path / "in" / name, IMAGE)
        save(tmp_path / "in/p/a_masks.tif", OBJECTS)
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        assert outcome.labels.keys() == [outcome.sources()["p/a.tif"]]

    @pytest.mark.parametrize(
        "pair",
        [
            ("images/cells.png", "masks/segmentation.png"),
            ("image/image.png", "mask/mask.png"),
            ("S1/images/x.png", "S1/masks/label.png"),
        ],
    )
    def test_an_only_mask_is_a_label_image(self, tmp_path: Path, pair: tuple[str, str]) -> None:
        save(tmp_path / "in" / pair[0], IMAGE)
        save(tmp_path / "in" / pair[1], OBJECTS)
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        (key,) = outcome.labels.keys()
        assert np.array_equal(outcome.labels.mask(key), OBJECTS)

    def test_masks_of_objects_with_one_or_several_values(self, tmp_path: Path) -> None:
        for number in (1, 2):
            save(tmp_path / f"in/x/masks/{number}.png", ((number == OBJECTS) * 255).astype(np.uint8))
            save(tmp_path / f"in/{number}/images/{number}.png", IMAGE)
        save(tmp_path / "in/x/masks/rest.png", np.where(OBJECTS > 2, OBJECTS, 0).astype(np.uint8))
        save(tmp_path / "in/x/images/x.png", IMAGE)
        save(tmp_path / "in/1/masks/one.png", ((OBJECTS == 5) * 255).astype(np.uint8))
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        masks = {key: outcome.labels.mask(key) for key in outcome.labels.entries}
        assert {key: int(mask.max()) for key, mask in masks.items()} == {"1__images__1": 1, "x__images__x": 9}
        assert same_objects(masks["x__images__x"], OBJECTS) and "7 values, each of which" in remarks(outcome)

    def test_folders_of_samples_are_no_classes(self, tmp_path: Path) -> None:
        for name in ("p1", "p2"):
            save(tmp_path / f"in/train/{name}/a.png", IMAGE)
            save(tmp_path / f"in/train/{name}/a_masks.png", OBJECTS)
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        assert not outcome.labels.classes() and len(outcome.labels) == 2
        for name in ("lobular", "ductal"):
            for number in range(3):
                save(tmp_path / f"classes/train/{name}/{number}.png", IMAGE)
        save(tmp_path / "classes/train/ductal/1_mask.png", OBJECTS)
        found = ingest(tmp_path / "classes", tmp_path / "out3").labels.classes()
        assert set(found.values()) == {"lobular", "ductal"}, "one label image does not make samples of classes"
        for name in ("id1", "id2"):
            save(tmp_path / f"bowl/train/{name}/images/{name}.png", IMAGE)
            for number in (1, 2):
                mask = ((number == OBJECTS) * 255).astype(np.uint8)
                save(tmp_path / f"bowl/train/{name}/masks/{number}.png", mask)
        outcome = ingest(tmp_path / "bowl", tmp_path / "out2")
        assert not outcome.labels.classes() and len(outcome.labels) == 2
