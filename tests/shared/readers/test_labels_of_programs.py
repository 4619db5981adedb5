"""Labels as other programs and data sets leave them: each becomes what its maker meant, or is listed."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from ingest_run import Outcome, ingest
from PIL import Image
from real_labels import wheel_nuclei

NUCLEI, REAL_LABELS = wheel_nuclei()
IMAGE = NUCLEI[:96, :96]
OBJECTS = np.zeros((96, 96), np.uint8)
for i in range(9):
    OBJECTS[8 + 30 * (i // 3) : 24 + 30 * (i // 3), 8 + 30 * (i % 3) : 24 + 30 * (i % 3)] = i + 1
SQUARES = np.zeros((48, 48), np.uint8)
SQUARES[5:15, 5:15], SQUARES[25:40, 25:40] = 1, 2


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels)
    else:
        Image.fromarray(pixels).save(path)


def labelled(folder: Path, mask: np.ndarray | Image.Image, name: str = "a_masks.png") -> Outcome:
    """Ingest `a.png` with a label image."""
    save(folder / "in/a.png", IMAGE)
    mask = Image.fromarray(mask) if isinstance(mask, np.ndarray) else mask
    mask.save(folder / "in" / name)
    return ingest(folder / "in", folder / "out")


def remarks(outcome: Outcome) -> str:
    return outcome.result.page.html()


def same_objects(found: np.ndarray, truth: np.ndarray) -> bool:
    """Whether two label images have the same objects, whatever their numbers."""
    pairs = {(int(a), int(b)) for a, b in zip(found.ravel(), truth.ravel(), strict=True)}
    return len(pairs) == len(np.unique(found)) == len(np.unique(truth)) and (0, 0) in pairs


def disc(y: int, x: int, radius: int) -> np.ndarray:
    rows, columns = np.ogrid[:96, :96]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def enlarged(small: np.ndarray, method: Image.Resampling) -> np.ndarray:
    return np.array(Image.fromarray(small).resize((96, 96), method))


class TestValues:
    def test_void_of_pascal_voc_is_unknown(self, tmp_path: Path) -> None:
        mask = np.zeros((96, 96), np.uint8)
        mask[8:42, 8:42] = mask[48:92, 48:92] = 255
        mask[10:40, 10:40], mask[50:90, 50:90] = 1, 2
        palette = Image.fromarray(mask, "P")
        palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, *[7] * 756, 224, 224, 192])
        save(tmp_path / "in/JPEGImages/a.png", IMAGE)
        (tmp_path / "in/SegmentationObject").mkdir()
        palette.save(tmp_path / "in/SegmentationObject/a.png")
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        (key,) = outcome.labels.keys()
        assert np.array_equal(outcome.labels.mask(key), np.where(mask == 255, 0, mask))
        assert np.array_equal(outcome.labels.conf(key) == 0, mask == 255)
        assert "the value 255 is read as unknown" in remarks(outcome)

    def test_rings_of_255_are_unknown_and_an_object_255_is_one(self, tmp_path: Path) -> None:
        ringed = np.zeros((96, 96), np.uint8)
        ringed[8:42, 8:42] = 255
        ringed[10:40, 10:40], ringed[60:90, 60:90] = 1, 2
        outcome = labelled(tmp_path / "ring", ringed)
        assert outcome.labels.mask("a").max() == 2 and (outcome.labels.conf("a") == 0).sum() == (ringed == 255).sum()
        apart = np.where(OBJECTS == 9, 255, OBJECTS).astype(np.uint8)
        outcome = labelled(tmp_path / "apart", apart)
        assert outcome.labels.mask("a").max() == 9 and (outcome.labels.conf("a") == 255).all()

    def test_the_index_that_holds_the_border_of_a_palette_is_background(self, tmp_path: Path) -> None:
        colours = np.zeros((96, 96, 3), np.uint8)
        colours[10:30, 10:30], colours[50:80, 50:80] = (255, 0, 0), (0, 255, 0)
        truth = (colours[..., 0] > 0) + 2 * (colours[..., 1] > 0)
        quantised = Image.fromarray(colours).quantize(16)
        assert np.array(quantised)[0, 0] != 0, "Pillow numbers the most common colour last"
        outcome = labelled(tmp_path, quantised)
        assert same_objects(outcome.labels.mask("a"), truth) and "of the palette" in remarks(outcome)

    def test_lines_between_basins_make_no_object_of_the_background(self, tmp_path: Path) -> None:
        """MATLAB's and MorphoLibJ's watersheds: 0 lines, 1 background, 2, 3, ... objects."""
        basins = np.where(OBJECTS > 0, OBJECTS + 1, 1).astype(np.uint8)
        for number in range(1, 10):
            rows, columns = np.nonzero(number == OBJECTS)
            frame = np.zeros((96, 96), bool)
            frame[rows.min() - 1 : rows.max() + 2, columns.min() - 1 : columns.max() + 2] = True
            basins[frame & (OBJECTS == 0)] = 0
        outcome = labelled(tmp_path, basins)
        assert same_objects(outcome.labels.mask("a"), OBJECTS) and "encloses the others" in remarks(outcome)

    def test_a_margin_of_0_around_ilastiks_values(self, tmp_path: Path) -> None:
        values = np.zeros((96, 96), np.uint8)
        values[3:93, 3:93] = 1
        values[OBJECTS > 0] = 2
        outcome = labelled(tmp_path, values)
        assert np.array_equal(outcome.labels.mask("a") > 0, OBJECTS > 0)

    def test_cells_that_fill_the_image_stay_objects(self, tmp_path: Path) -> None:
        """Lines of 0 between cells of which none encloses the others."""
        cells = (np.arange(96) // 24)[:, None] * 4 + (np.arange(96) // 24)[None] + 1
        cells[::24], cells[:, ::24] = 0, 0
        outcome = labelled(tmp_path, cells.astype(np.uint8))
        assert same_objects(outcome.labels.mask("a"), cells)

    @pytest.mark.parametrize(
        "colours", [((255, 0, 0), (0, 0, 255)), ((0, 255, 0), (255, 0, 0)), ((255, 255, 0), (0, 255, 255))]
    )
    def test_smeared_colours_keep_every_object(self, tmp_path: Path, colours) -> None:
        small = np.zeros((48, 48, 3), np.uint8)
        small[SQUARES == 1], small[SQUARES == 2] = colours
        outcome = labelled(tmp_path, enlarged(small, Image.Resampling.BILINEAR))
        truth = enlarged(SQUARES, Image.Resampling.NEAREST) > 0
        assert (outcome.labels.mask("a") == truth).mean() > 0.98 and outcome.labels.entries["a"].kind == "foreground"

    def test_a_smeared_mask_on_white_is_not_inverted(self, tmp_path: Path) -> None:
        small = np.where(SQUARES > 0, 1, 255).astype(np.uint8)
        outcome = labelled(tmp_path, enlarged(small, Image.Resampling.BICUBIC).clip(1, 255))
        truth = enlarged(SQUARES, Image.Resampling.NEAREST) > 0
        assert (outcome.labels.mask("a") == truth).mean() > 0.98

    def test_a_foreground_on_the_whole_border_gets_a_remark(self, tmp_path: Path) -> None:
        outcome = labelled(tmp_path, np.where(OBJECTS > 0, 0, 255).astype(np.uint8))
        assert "invert it if that is the background" in remarks(outcome)

    @pytest.mark.parametrize("count", [2, 3, 4])
    def test_label_images_of_several_channels_are_refused(self, tmp_path: Path, count: int) -> None:
        """Cells and nuclei as channels: neither alpha nor colours."""
        save(tmp_path / "in/a.png", IMAGE)
        planes = np.stack([OBJECTS, *[(OBJECTS // 2).astype(np.uint8)] * (count - 1)])
        tifffile.imwrite(tmp_path / "in/a_masks.tif", planes, imagej=True, metadata={"axes": "CYX"})
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        assert (
            not len(outcome.labels) and f"label image with {count} channels; one is needed" in outcome.rejects["a.png"]
        )

    @pytest.mark.parametrize("name", ["a_masks.png", "a_masks.bmp", "a_masks.tif"])
    def test_a_hole_in_confluent_cells_stays_a_hole(self, tmp_path: Path, name: str) -> None:
        """A grey BMP has a palette of greys, whose indexes are values; so are those of a palette that begins black."""
        mask = np.where(OBJECTS == 5, 0, 255).astype(np.uint8)
        assert np.array_equal(labelled(tmp_path / "grey", mask, name).labels.mask("a") > 0, mask > 0)
        palette = Image.fromarray(mask // 255, "P")
        palette.putpalette([0, 0, 0, 255, 255, 255])
        assert np.array_equal(labelled(tmp_path / "palette", palette, name).labels.mask("a") > 0, mask > 0)

    def test_nuclei_of_255_within_cells_are_known(self, tmp_path: Path) -> None:
        mask = np.zeros((96, 96), np.uint8)
        for centre in ((15, 15), (15, 50), (50, 20), (70, 70)):
            mask[disc(*centre, 12)] = 128
        for centre in ((15, 15), (15, 50), (50, 20), (70, 70)):
            mask[disc(*centre, 5)] = 255
        outcome = labelled(tmp_path, mask)
        assert np.array_equal(outcome.labels.mask("a") > 0, mask > 0) and (outcome.labels.conf("a") == 255).all()

    def test_white_background_is_no_void(self, tmp_path: Path) -> None:
        mask = np.where(OBJECTS > 0, 100, 255).astype(np.uint8)
        outcome = labelled(tmp_path, mask, "a_masks.bmp")
        assert np.array_equal(outcome.labels.mask("a") > 0, OBJECTS > 0) and (outcome.labels.conf("a") == 255).all()

    def test_a_single_cell_with_a_nucleus_is_no_background(self, tmp_path: Path) -> None:
        mask = np.zeros((96, 96), np.uint8)
        mask[30:60, 20:80] = 1
        mask[38:50, 40:55] = 2
        assert np.array_equal(labelled(tmp_path, mask).labels.mask("a") > 0, mask > 0)

    def test_black_objects_on_a_transparent_image(self, tmp_path: Path) -> None:
        alpha = (OBJECTS > 0).astype(np.uint8) * 255
        white = np.where(alpha > 0, 0, 255).astype(np.uint8)
        outcome = labelled(tmp_path, np.dstack([white] * 3 + [alpha]))
        assert np.array_equal(outcome.labels.mask("a") > 0, OBJECTS > 0)


class TestFrames:
    def test_frames_pair_by_the_axes_that_both_files_name(self, tmp_path: Path) -> None:
        stack = np.stack([np.roll(IMAGE, 9 * i, axis=1) for i in range(6)]).reshape(3, 2, 96, 96)
        (tmp_path / "in").mkdir()
        tifffile.imwrite(tmp_path / "in/a.ome.tif", stack, metadata={"axes": "ZTYX"})
        masks = np.zeros((2, 3, 96, 96), np.uint8)
        for i in range(6):
            masks[i // 3, i % 3, 10 : 20 + i, 10:20] = 1
        tifffile.imwrite(tmp_path / "in/a_masks.tif", masks, imagej=True, metadata={"axes": "TZYX"})
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        for number, key in enumerate(outcome.labels.keys()):
            z, t = divmod(number, 2)
            np.testing.assert_array_equal(outcome.images.read(key)[..., 0], stack[z, t])
            np.testing.assert_array_equal(outcome.labels.mask(key), masks[t, z])

    def test_separate_narrow_pages_are_frames(self, tmp_path: Path) -> None:
        """Pages of a mother machine, 24 px wide, each with a header of its own, are no channels."""
        pages = [Image.fromarray(np.roll(IMAGE[:, :24], i, axis=0)) for i in range(40)]
        (tmp_path / "in").mkdir()
        pages[0].save(tmp_path / "in/a.tif", save_all=True, append_images=pages[1:])
        entries = ingest(tmp_path / "in", tmp_path / "out").images.entries.values()
        assert [(entry.height, entry.width, entry.channels) for entry in entries] == [(96, 24, 1)] * 40


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


def square(x: int, y: int, side: int = 20) -> list[int]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def annotation(**fields: object) -> dict[str, object]:
    given = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "segmentation": [square(10, 10)]}
    return given | {"iscrowd": 0} | fields


def coco(path: Path, *annotations: dict[str, object], name: str = "a.png", **image: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": 1, "file_name": name, **image}]
    categories = [{"id": 1, "name": "cell"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def voc(path: Path, *boxes: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        f"<object><name>cell</name><bndbox><xmin>{low}</xmin><ymin>{low}</ymin><xmax>{high}</xmax><ymax>{high}</ymax>"
        "</bndbox></object>"
        for low, high in boxes
    ]
    path.write_text(f"<annotation>{''.join(rows)}</annotation>")


class TestAnnotations:
    @pytest.mark.parametrize(
        "fields",
        [
            {"category_id": 0},
            {"category_id": None},
            {"segmentation": {"size": [95, 96], "counts": [0, 96 * 95]}},
            {"segmentation": [[1, 2, 3, 4]], "bbox": None},
        ],
    )
    def test_lost_objects_leave_no_empty_truth(self, tmp_path: Path, fields: dict[str, object]) -> None:
        save(tmp_path / "in/a.png", IMAGE)
        coco(tmp_path / "in/a.json", annotation(**fields))
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        assert not outcome.labels.contents() and "annotation 1" in outcome.rejects["a.png"]

    def test_the_place_of_a_lost_object_is_unknown(self, tmp_path: Path) -> None:
        save(tmp_path / "in/a.png", IMAGE)
        coco(tmp_path / "in/a.json", annotation(category_id=7), annotation(id=2, segmentation=[square(50, 50)]))
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        mask, conf = outcome.labels.mask("a"), outcome.labels.conf("a")
        assert mask[60, 60] == 1 and mask.max() == 1 and "annotation 1" in outcome.rejects["a.png"]
        assert (conf[10:30, 10:30] == 0).all() and (conf == 0).sum() == 400

    def test_boxes_of_voc_that_are_lost_leave_no_empty_truth(self, tmp_path: Path) -> None:
        save(tmp_path / "in/a.png", IMAGE)
        voc(tmp_path / "in/a.xml", (30, 30))
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        assert not outcome.labels.contents() and "object 1" in outcome.rejects["a.png"]
        voc(tmp_path / "none/a.xml")
        save(tmp_path / "none/a.png", IMAGE)
        assert ingest(tmp_path / "none", tmp_path / "out2").labels.annotations() == {"a": []}, (
            "an image without objects"
        )

    def test_ids_with_leading_zeros(self, tmp_path: Path) -> None:
        save(tmp_path / "in/a.png", IMAGE)
        coco(tmp_path / "in/a.json", annotation(image_id="000001"))
        assert ingest(tmp_path / "in", tmp_path / "out").labels.mask("a").max() == 1

    def test_folders_in_a_name_are_not_ignored(self, tmp_path: Path) -> None:
        for name in ("val/000.png", "plate2/a.png"):
            save(tmp_path / "in" / name, IMAGE)
        coco(tmp_path / "in/one.json", annotation(), name="train/000.png")
        coco(tmp_path / "in/two.json", annotation(), name="plate1/a.png")
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        assert not outcome.labels.contents()
        of_another = "(val/000.png is of another folder or split)"
        assert outcome.rejects["one.json"].endswith(f"'train/000.png' is missing {of_another}")
        assert "'plate1/a.png' is missing" in outcome.rejects["two.json"]

    def test_paths_of_another_computer_are_found_by_their_name(self, tmp_path: Path) -> None:
        save(tmp_path / "in/plate2/a.png", IMAGE)
        coco(tmp_path / "in/one.json", annotation(), name="C:\\exports\\plate1\\a.png")
        assert len(ingest(tmp_path / "in", tmp_path / "out").labels) == 1

    def test_the_file_of_the_same_plate_comes_first(self, tmp_path: Path) -> None:
        save(tmp_path / "in/plate2/a.png", IMAGE)
        coco(tmp_path / "in/plate1/ann.json", annotation())
        coco(tmp_path / "in/plate2/ann.json", annotation(segmentation=[square(50, 50)]))
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        (key,) = outcome.labels.keys()
        assert outcome.labels.mask(key)[60, 60] == 1 and "plate1/ann.json" in outcome.rejects
        save(tmp_path / "well/plate2/A01/f1.png", IMAGE)
        coco(tmp_path / "well/x.json", annotation(), name="plate1/A01/f1.png")
        outcome = ingest(tmp_path / "well", tmp_path / "out2")
        assert not outcome.labels.contents() and "is missing" in outcome.rejects["x.json"]
        save(tmp_path / "voc/plateB/images/a.png", IMAGE)
        voc(tmp_path / "voc/plateA/ann/a.xml", (10, 30))
        outcome = ingest(tmp_path / "voc", tmp_path / "out3")
        assert not outcome.labels.contents() and "whose image is missing" in outcome.rejects["plateA/ann/a.xml"]

    def test_a_file_that_only_lists_an_image_does_not_empty_it(self, tmp_path: Path) -> None:
        for name in "ab":
            save(tmp_path / f"in/{name}.png", IMAGE)
        images = [{"id": number, "file_name": f"{name}.png"} for number, name in ((1, "a"), (2, "b"))]
        for split, number in (("train", 1), ("val", 2)):
            rows = [annotation(image_id=number, segmentation=[square(50, 50)])]
            data = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "cell"}]}
            (tmp_path / f"in/{split}.json").write_text(json.dumps(data))
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        assert [outcome.labels.mask(key)[60, 60] for key in "ab"] == [1, 1] and not outcome.rejects

    def test_annotations_of_splits_by_their_names(self, tmp_path: Path) -> None:
        save(tmp_path / "in/val2017/000.png", IMAGE)
        coco(tmp_path / "in/annotations/instances_train2017.json", annotation(), name="000.png")
        coco(
            tmp_path / "in/annotations/instances_val2017.json",
            annotation(segmentation=[square(50, 50)]),
            name="000.png",
        )
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        (key,) = outcome.labels.keys()
        assert outcome.labels.mask(key)[60, 60] == 1 and outcome.labels.mask(key)[20, 20] == 0
        assert "is missing" in outcome.rejects["annotations/instances_train2017.json"]

    def test_voc_of_several_splits_with_the_same_names(self, tmp_path: Path) -> None:
        for split, box in (("train", (10, 30)), ("val", (50, 60))):
            save(tmp_path / f"in/{split}/images/a.png", IMAGE)
            voc(tmp_path / f"in/{split}/annotations/a.xml", box)
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        boxes = {outcome.images.entries[key].split: found for key, found in outcome.labels.boxes().items()}
        assert boxes == {"train": [(10, 10, 20, 20)], "val": [(50, 50, 10, 10)]} and not outcome.rejects

    def test_a_second_voc_file_of_an_image_is_listed(self, tmp_path: Path) -> None:
        save(tmp_path / "in/train/images/a.png", IMAGE)
        voc(tmp_path / "in/train/annotations/a.xml", (10, 30))
        voc(tmp_path / "in/train/annotations_old/a.xml", (40, 60))
        voc(tmp_path / "in/val/annotations/a.xml", (50, 60))
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        assert list(outcome.labels.boxes().values()) == [[(10, 10, 20, 20)]]
        assert "has another one" in outcome.rejects["train/annotations_old/a.xml"]
        assert "whose image is missing" in outcome.rejects["val/annotations/a.xml"]

    def test_the_same_boxes_in_voc_and_coco_are_counted_once(self, tmp_path: Path) -> None:
        save(tmp_path / "in/a.png", IMAGE)
        coco(tmp_path / "in/a.json", annotation())
        voc(tmp_path / "in/a.xml", (10, 30), (50, 70))
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        assert sorted(outcome.labels.boxes()["a"]) == [(10, 10, 20, 20), (50, 50, 20, 20)]
        assert "boxes that repeat those of another annotation file: 1" in remarks(outcome)

    def test_points_are_no_classes(self, tmp_path: Path) -> None:
        save(tmp_path / "in/a.png", IMAGE)
        points = {"id": 1, "image_id": 1, "category_id": 1, "keypoints": [9, 9, 2]}
        coco(tmp_path / "in/a.json", points)
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        assert not outcome.labels.contents() and "points (keypoints)" in outcome.rejects["a.json"]

    def test_a_file_cut_off_within_its_images(self, tmp_path: Path) -> None:
        save(tmp_path / "in/a.png", IMAGE)
        coco(tmp_path / "in/a.json", annotation())
        path = tmp_path / "in/a.json"
        path.write_bytes(path.read_bytes()[:35])
        assert "not readable COCO" in ingest(tmp_path / "in", tmp_path / "out").rejects["a.json"]

    def test_sizes_as_text_and_boxes_as_shares(self, tmp_path: Path) -> None:
        save(tmp_path / "in/a.png", IMAGE)
        coco(tmp_path / "in/a.json", annotation(), height="192", width="192")
        assert "of an image of 192 x 192 px" in ingest(tmp_path / "in", tmp_path / "out").rejects["a.png"]
        coco(tmp_path / "in/a.json", annotation(segmentation=[], bbox=[0.1, 0.1, 0.2, 0.2]))
        assert "shares of the image's size" in ingest(tmp_path / "in", tmp_path / "out2").rejects["a.png"]
