"""Folders of ordinary pictures: crop, size, colour and depth, and broken ones are named."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys_files import RNG, image

from lensdiff.data.folders import pictures
from lensdiff.data.images import ImageSet
from lensdiff.errors import DataError


def save_picture(path: Path, values: np.ndarray) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path.read_bytes()


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape).astype(np.uint8)


def read_one(folder: Path, colour: bool) -> ImageSet:
    return pictures(folder, 16, colour, cache=folder.parent / "cache")


def test_pictures_are_cropped_to_the_centre(tmp_path: Path) -> None:
    """Pixel by pixel, where they have the size; the frame around the square leaves no trace."""
    wide = noise(16, 24, 3)
    tall = noise(30, 16, 3)
    square = noise(16, 16, 3)
    for name, values in zip("abc", (wide, tall, square), strict=True):
        save_picture(tmp_path / "pictures" / f"{name}.png", values)
    images = pictures(tmp_path / "pictures", 16, cache=tmp_path / "cache")
    assert images.pixels.shape == (3, 3, 16, 16) and isinstance(images.pixels, np.memmap)
    assert images.symmetries == 2
    expected = np.stack([wide[:, 4:20], tall[7:23], square]).transpose(0, 3, 1, 2) / 255
    order = [int(np.abs(expected - x).max((1, 2, 3)).argmin()) for x in images.pixels]
    assert sorted(order) == [0, 1, 2]
    assert images.pixels == pytest.approx(expected[order], abs=1e-6)
    assert pictures(tmp_path / "pictures", 8, cache=tmp_path / "cache").folder != images.folder


def test_pictures_are_resized(tmp_path: Path) -> None:
    values = np.zeros((64, 96), np.uint8)
    values[:32, 16:48] = 200  # the upper left quarter of the central square
    values[:, :16] = 255  # the frame
    values[:, 80:] = 255
    save_picture(tmp_path / "pictures" / "a.png", values)
    pixels = pictures(tmp_path / "pictures", 8, colour=False, cache=tmp_path / "cache").pixels
    assert pixels.shape == (1, 1, 8, 8)
    assert pixels[0, 0, :3, :3] == pytest.approx(200 / 255, abs=0.05)
    assert pixels[0, 0, 5:, :] == pytest.approx(0, abs=0.05)
    assert pixels[0, 0, :, 5:] == pytest.approx(0, abs=0.05)


def test_grey_and_colour(tmp_path: Path) -> None:
    grey = noise(16, 16)
    colour = noise(16, 16, 3)
    save_picture(tmp_path / "grey" / "a.PNG", grey)
    save_picture(tmp_path / "colour" / "a.png", colour)
    expected = np.stack([grey / 255] * 3)
    one = read_one(tmp_path / "grey", False).pixels[0]
    assert one.shape == (1, 16, 16) and one == pytest.approx(expected[:1], abs=1e-6)
    assert read_one(tmp_path / "grey", True).pixels[0] == pytest.approx(expected, abs=1e-6)
    luma = colour @ [0.299, 0.587, 0.114] / 255
    assert read_one(tmp_path / "colour", False).pixels[0, 0] == pytest.approx(luma, abs=1.01 / 255)


@pytest.mark.parametrize("colour", [False, True])
def test_16_bit_grey_keeps_its_range(tmp_path: Path, colour: bool) -> None:
    """Pillow's own conversion clips at 255 of 65,535, which makes such pictures white."""
    values = RNG.integers(0, 65536, (16, 16)).astype(np.uint16)
    save_picture(tmp_path / "deep" / "a.png", values)
    save_picture(tmp_path / "deep" / "b.tif", values)
    for pixels in read_one(tmp_path / "deep", colour).pixels:
        assert pixels[0] == pytest.approx(values / 65535, abs=0.51 / 255)


@pytest.mark.parametrize("deep", [1, 257])
def test_a_photograph_is_turned_as_its_exif_says(tmp_path: Path, deep: int) -> None:
    """One of 16 bits too."""
    pixels = noise(16, 16)
    (tmp_path / "phone").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise shows it upright
    values = pixels if deep == 1 else deep * pixels.astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "phone" / "a.png", exif=exif)
    upright = np.rot90(pixels, -1) / 255
    assert read_one(tmp_path / "phone", False).pixels[0, 0] == pytest.approx(upright, abs=1e-6)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_white(tmp_path: Path, mode: str) -> None:
    """What colour a file holds there is not seen in any other program."""
    picture = Image.new("RGBA", (16, 16), (0, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 8, 16))
    (tmp_path / "cut").mkdir()
    picture.convert(mode).save(tmp_path / "cut" / "a.png")
    for colour in (False, True):
        found = read_one(tmp_path / "cut", colour).pixels[0]
        assert (found[..., :8] == 1).all() and (found[..., 8:] == 0).all()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def broken_pictures(path: Path) -> dict[str, bytes]:
    good = save_picture(path, noise(200, 200, 3))
    second = good.index(b"IDAT", good.index(b"IDAT") + 4)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"0" * 100))
    floats = path.with_suffix(".tif")
    Image.fromarray(image(16, 16).astype(np.float32)).save(floats)
    return {
        "truncated": good[: len(good) // 2],
        "overwritten": good[:2000] + bytes(500) + good[2500:],
        "chunk-name": good[:second] + b"\x00\x01\x02\x03" + good[second + 4 :],
        "empty": b"",
        "text": b"this is no picture",
        "bomb": b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b""),
        "floats": floats.read_bytes(),
    }


@pytest.mark.parametrize(
    "name", ["truncated", "overwritten", "chunk-name", "empty", "text", "bomb", "floats"]
)
def test_broken_pictures_are_named(tmp_path: Path, name: str) -> None:
    save_picture(tmp_path / "pictures" / "a.png", noise(20, 20, 3))
    path = tmp_path / "pictures" / "b.png"
    path.write_bytes(broken_pictures(tmp_path / "whole.png")[name])
    message = f"^{re.escape(str(path))}: can't be read as a picture .*Replace it or take it out"
    with pytest.raises(DataError, match=message):
        read_one(tmp_path / "pictures", True)
    assert list((tmp_path / "cache").iterdir()) == []
