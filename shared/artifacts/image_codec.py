"""Encode images (H, W, C) without loss, and hash their pixels."""

import hashlib
import io
from dataclasses import dataclass

import imagecodecs
import numpy as np
import tifffile


@dataclass(frozen=True)
class EncodedImage:
    """An image as it is stored in a shard. Threads encode side by side; one thread writes in order."""

    extension: str
    """`png` or `tif`."""
    data: bytes
    shape: tuple[int, int, int]
    """Height, width, channels."""
    dtype: str
    """numpy's name."""
    sha256: str
    """Of the pixels, see `pixel_hash`."""


def encode_image(image: np.ndarray) -> EncodedImage:
    """Encode an image (H, W, C), uint8, uint16 or floating point: as PNG where that can hold it, else as TIFF."""
    if image.ndim != 3:
        raise ValueError(f"an image is (height, width, channels), not {image.shape}")
    is_png = image.dtype in (np.uint8, np.uint16) and image.shape[2] in (1, 3)
    data = _encode_png(image) if is_png else _encode_tiff(image)
    height, width, channels = image.shape
    extension = "png" if is_png else "tif"
    return EncodedImage(extension, data, (height, width, channels), str(image.dtype), pixel_hash(image))


def _encode_png(image: np.ndarray) -> bytes:
    pixels = image.squeeze(2) if image.shape[2] == 1 else image
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels), 1))


def _encode_tiff(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    tifffile.imwrite(
        stream,
        planes,
        photometric="minisblack",
        planarconfig="separate" if len(planes) > 1 else None,
        compression="zlib",
        metadata=None,
        software="",
    )
    return stream.getvalue()


def extension_of(data: bytes) -> str:
    """Name the format of stored bytes: `png` or `tif`."""
    return "png" if data[:4] == b"\x89PNG" else "tif"


def decode_image(data: bytes, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode the bytes of an `EncodedImage` to (H, W, C).

    size: height and width according to the index. Raises ValueError where the header declares others.
    """
    _check_size(data, size)
    if extension_of(data) == "png":
        image = imagecodecs.png_decode(data)
        return image if image.ndim == 3 else image[..., None]
    planes = tifffile.imread(io.BytesIO(data))
    return np.ascontiguousarray((planes if planes.ndim == 3 else planes[None]).transpose(1, 2, 0))


def pixel_hash(image: np.ndarray) -> str:
    """Return the hex sha256 over dtype, shape and pixels."""
    digest = hashlib.sha256(f"{image.dtype} {image.shape}".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def encode_labels(labels: np.ndarray) -> tuple[str, bytes]:
    """Encode a label image without loss: PNG up to uint16, else zlib-compressed TIFF. Returns extension and bytes."""
    if labels.ndim != 2 or labels.dtype.kind not in "ub":
        raise ValueError(f"a label image is (height, width) of unsigned integers, not {labels.dtype} {labels.shape}")
    highest = int(labels.max(initial=0))
    if highest < 2**16:
        dtype = np.uint8 if highest < 256 else np.uint16
        return "png", bytes(imagecodecs.png_encode(np.ascontiguousarray(labels, dtype), 1))
    data = imagecodecs.tiff_encode(np.ascontiguousarray(labels, np.uint32), compression=8)  # Adobe deflate
    return "tif", bytes(data)


def _check_size(data: bytes, size: tuple[int, int] | None) -> None:
    """Compare the size in the header with the index, before anything is allocated."""
    if size is None:
        return
    if data[:4] == b"\x89PNG":
        found = int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    else:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages.first
            found = page.imagelength, page.imagewidth
    if found != size:
        raise ValueError(f"an image of {found[1]} x {found[0]} px; its index has {size[1]} x {size[0]}")


def decode_labels(data: bytes, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode the bytes of `encode_labels`; size and errors as in `decode_image`."""
    _check_size(data, size)
    return imagecodecs.png_decode(data) if data[:4] == b"\x89PNG" else imagecodecs.tiff_decode(data)
