"""Label images as other programs and data sets write them become what their makers meant."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from ingest_run import ingest
from label_files import IMAGE, OBJECTS, SQUARES, disc, enlarged, labelled, remarks, same_objects, save
from PIL import Image


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
