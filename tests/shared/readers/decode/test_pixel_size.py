"""The pixel size is taken from OME metadata, ImageJ's unit and resolution tags, where it is plausible and square."""

import pytest
from image_files import random, written

from shared.readers.decode.image_file import Limits, open_image


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"imagej": True, "resolution": (2.0, 2.0), "metadata": {"unit": "um"}}, 0.5),
        ({"imagej": True, "resolution": (2.0, 2.0), "metadata": {"unit": "pixel"}}, None),
        ({"imagej": True, "resolution": (2.0, 2.0), "metadata": {"unit": "nm"}}, 0.0005),
        ({"imagej": True, "resolution": (2.0, 4.0), "metadata": {"unit": "um"}}, None),  # not square
        ({"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 0.65, "PhysicalSizeY": 0.65}}, 0.65),
        (
            {
                "ome": True,
                "metadata": {
                    "axes": "YX",
                    "PhysicalSizeX": 325,
                    "PhysicalSizeXUnit": "nm",
                    "PhysicalSizeY": 325,
                    "PhysicalSizeYUnit": "nm",
                },
            },
            0.325,
        ),
        ({"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}, 0.5),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),
        ({}, None),
    ],
)
def test_the_pixel_size_is_read_where_it_is_plausible(tmp_path, options, expected):
    with open_image(written(tmp_path, random(30, 40), **options), Limits()) as file:
        assert file.frames[0].um_per_px == expected
