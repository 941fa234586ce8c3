"""Image files: round trips, odd formats, and one clear sentence for every bad file."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from deqir.errors import DeqirError, ImageReadError, NonFiniteError, OptionError, OutputError, ShapeError
from deqir.images import atomic_write, find_images, read_image, read_mask, read_metadata, write_image

cv2 = pytest.importorskip("cv2")


def random_image(channels: int, bits: int, height: int = 9, width: int = 14) -> torch.Tensor:
    peak = 2**bits - 1
    values = torch.randint(0, peak + 1, (channels, height, width), generator=torch.Generator().manual_seed(bits))
    return values.to(torch.float32).div(peak)


def bytes_image(height: int = 6, width: int = 8, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def as_tensor(pixels: np.ndarray, peak: int = 255) -> torch.Tensor:
    image = torch.from_numpy(pixels.astype(np.float32)) / peak
    return image[None] if image.ndim == 2 else image.permute(2, 0, 1)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def write_tiff(path: Path, pixels: np.ndarray, order: Literal["<", ">"] = "<", **changed: int) -> Path:
    """A bare uncompressed TIFF of one strip, for the kinds that Pillow and OpenCV do not write."""
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    bits = struct.pack(order + f"{channels}H", *[pixels.dtype.itemsize * 8] * channels)
    width_height = {256: pixels.shape[1], 257: pixels.shape[0], 259: 1, 262: 2 if channels > 1 else 1}
    shorts = {**width_height, 274: 1, 277: channels, 278: pixels.shape[0], 284: 1}
    shorts.update({339: kind, 258: pixels.dtype.itemsize * 8} if channels == 1 else {})
    shorts.update({int(tag[1:]): value for tag, value in changed.items()})
    entries = {tag: struct.pack(order + "HHIHH", tag, 3, 1, value, 0) for tag, value in shorts.items()}
    start = 8 + 2 + 12 * (len(entries) + (3 if channels > 1 else 2)) + 4
    if channels > 1:
        entries[258] = struct.pack(order + "HHII", 258, 3, channels, start)
    for tag, value in ((273, start + len(bits)), (279, len(data))):
        entries[tag] = struct.pack(order + "HHII", tag, 4, 1, value)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    path.write_bytes(head + b"".join(entries[tag] for tag in sorted(entries)) + b"\0" * 4 + bits + data)
    return path


class TestRoundTrips:
    @pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF", ".webp"])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_eight_bits_are_kept(self, tmp_path: Path, suffix: str, channels: int) -> None:
        image = random_image(channels, 8)
        write_image(tmp_path / f"a{suffix}", image)
        expected = image.expand(3, -1, -1) if suffix == ".webp" else image  # WebP has no grey
        assert torch.equal(read_image(tmp_path / f"a{suffix}"), expected)

    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_sixteen_bits_are_kept(self, tmp_path: Path, suffix: str, channels: int) -> None:
        image = random_image(channels, 16)
        write_image(tmp_path / f"a{suffix}", image, bits=16)
        read = read_image(tmp_path / f"a{suffix}")
        assert read.dtype == torch.float32 and read.is_contiguous()
        assert torch.equal(read, image)

    @pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_jpeg_is_close(self, tmp_path: Path, suffix: str, channels: int) -> None:
        image = torch.linspace(0, 1, 32).expand(channels, 32, 32)
        write_image(tmp_path / f"a{suffix}", image)
        assert (read_image(tmp_path / f"a{suffix}") - image).abs().max() < 0.02

    @pytest.mark.parametrize("bits", [8, 16])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_metadata_is_kept_beside_the_pixels(self, tmp_path: Path, bits: int, channels: int) -> None:
        metadata = {"operator": "sr", "scale": 4, "note": "é ≤ 日 😀", "nested": {"seed": [0, 1.5, None]}}
        image = random_image(channels, bits)
        write_image(tmp_path / "a.png", image, bits=bits, metadata=metadata)
        assert read_metadata(tmp_path / "a.png") == metadata
        assert torch.equal(read_image(tmp_path / "a.png"), image)

    def test_other_formats_leave_metadata_out(self, tmp_path: Path) -> None:
        write_image(tmp_path / "a.jpg", random_image(3, 8), metadata={"a": 1})
        write_image(tmp_path / "b.png", random_image(3, 8))
        assert read_metadata(tmp_path / "a.jpg") is None
        assert read_metadata(tmp_path / "b.png") is None

    def test_values_are_clipped_and_rounded(self, tmp_path: Path) -> None:
        write_image(tmp_path / "a.png", torch.tensor([[[-0.3, 1.7, 0.6 / 255, 0.4 / 255]]], dtype=torch.float64))
        assert (read_image(tmp_path / "a.png") * 255).flatten().tolist() == [0, 255, 1, 0]

    def test_half_precision_with_gradient(self, tmp_path: Path) -> None:
        write_image(tmp_path / "a.png", torch.ones(3, 4, 4, dtype=torch.bfloat16, requires_grad=True))
        assert read_image(tmp_path / "a.png").min() == 1


class TestReadingOddFormats:
    @pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_orientation_is_applied(self, tmp_path: Path, suffix: str, orientation: int) -> None:
        stored = Image.fromarray(np.kron(bytes_image(2, 3), np.ones((16, 16, 1), np.uint8)))
        exif = Image.Exif()
        exif[274] = orientation
        stored.save(tmp_path / f"a.{suffix}", exif=exif, quality=100)
        turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
        upright = stored if orientation == 1 else stored.transpose(Image.Transpose(turns[orientation]))
        read = read_image(tmp_path / f"a.{suffix}")
        assert read.shape[1:] == (upright.height, upright.width)
        assert (read - as_tensor(np.asarray(upright))).abs().mean() < 0.06

    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_orientation_of_sixteen_bit_colour(self, tmp_path: Path, suffix: str) -> None:
        pixels = np.random.default_rng(1).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
        path = tmp_path / f"a.{suffix}"
        if suffix == "png":
            png = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
            body = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
            path.write_bytes(png[:33] + chunk(b"eXIf", body) + png[33:])
        else:
            write_tiff(path, pixels, t274=6)
        assert torch.equal(read_image(path), as_tensor(np.rot90(pixels, -1).copy(), 65535))

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_tiffs_of_either_byte_order(self, tmp_path: Path, order: Literal["<", ">"]) -> None:
        pixels = np.random.default_rng(1).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
        grey = pixels[..., 0]
        assert torch.equal(read_image(write_tiff(tmp_path / "c.tif", pixels, order)), as_tensor(pixels, 65535))
        assert torch.equal(read_image(write_tiff(tmp_path / "g.tif", grey, order)), as_tensor(grey, 65535))

    def test_tiff_whose_zero_is_white(self, tmp_path: Path) -> None:
        for peak, pixels in ((65535, bytes_image()[..., 0].astype(np.uint16) * 257), (255, bytes_image()[..., 0])):
            read = read_image(write_tiff(tmp_path / "a.tif", pixels, t262=0))
            torch.testing.assert_close(read, 1 - as_tensor(pixels, peak))

    @pytest.mark.parametrize("colours", [2, 200])
    def test_palette_becomes_colour(self, tmp_path: Path, colours: int) -> None:
        image = Image.fromarray(bytes_image()).quantize(colours)
        image.save(tmp_path / "a.png", transparency=bytes([0] * 2))
        assert torch.equal(read_image(tmp_path / "a.png"), as_tensor(np.asarray(image.convert("RGB"))))

    @pytest.mark.parametrize("suffix", ["jpg", "tif"])
    def test_cmyk_becomes_colour(self, tmp_path: Path, suffix: str) -> None:
        cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # red
        cmyk.save(tmp_path / f"a.{suffix}", quality=100)
        red = read_image(tmp_path / f"a.{suffix}").mean((1, 2))
        assert red.tolist() == pytest.approx([1, 0, 0], abs=0.02)

    def test_alpha_is_ignored(self, tmp_path: Path) -> None:
        pixels = bytes_image(channels=4)
        Image.fromarray(pixels).save(tmp_path / "rgba.png")
        Image.fromarray(pixels[..., :2].copy()).save(tmp_path / "la.png")
        assert torch.equal(read_image(tmp_path / "rgba.png"), as_tensor(pixels[..., :3]))
        assert torch.equal(read_image(tmp_path / "la.png"), as_tensor(pixels[..., 0]))

    def test_alpha_of_sixteen_bits_is_ignored(self, tmp_path: Path) -> None:
        pixels = np.random.default_rng(2).integers(0, 65536, (5, 7, 4), dtype=np.uint16)
        cv2.imwrite(str(tmp_path / "rgba.png"), pixels)
        assert torch.equal(read_image(tmp_path / "rgba.png"), as_tensor(pixels[..., [2, 1, 0]], 65535))
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels[..., :2])
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 7, 5, 16, 4, 0, 0, 0))
        body = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        (tmp_path / "la.png").write_bytes(body)
        assert torch.equal(read_image(tmp_path / "la.png"), as_tensor(pixels[..., 0], 65535))

    @pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
    def test_one_bit(self, tmp_path: Path, suffix: str) -> None:
        pixels = bytes_image()[..., 0] > 127
        Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")
        assert torch.equal(read_image(tmp_path / f"a.{suffix}"), torch.from_numpy(pixels).float()[None])

    def test_bmp(self, tmp_path: Path) -> None:
        Image.fromarray(bytes_image()).save(tmp_path / "a.bmp")
        assert torch.equal(read_image(tmp_path / "a.bmp"), as_tensor(bytes_image()))

    def test_floats_within_range(self, tmp_path: Path) -> None:
        pixels = np.random.default_rng(0).random((5, 7, 3)).astype(np.float32)
        tifffile.imwrite(tmp_path / "colour.tif", pixels, photometric="rgb")
        Image.fromarray(pixels[..., 0].copy()).save(tmp_path / "grey.tif")
        write_tiff(tmp_path / "double.tif", pixels[..., 0].astype(np.float64))
        assert torch.equal(read_image(tmp_path / "colour.tif"), as_tensor(pixels, 1))
        assert torch.equal(read_image(tmp_path / "grey.tif"), as_tensor(pixels[..., 0], 1))
        assert torch.equal(read_image(tmp_path / "double.tif"), as_tensor(pixels[..., 0], 1))

    def test_large_limit_beats_that_of_pillow(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        Image.fromarray(bytes_image()).save(tmp_path / "a.png")
        assert read_image(tmp_path / "a.png").shape == (3, 6, 8)
        assert Image.MAX_IMAGE_PIXELS == 10


def message_of(error: pytest.ExceptionInfo[DeqirError], path: Path) -> str:
    """The message, once checked to be one line that names the file and says what to do."""
    message = str(error.value)
    assert "\n" not in message and path.name in message and ("; " in message)
    return message


class TestBadFiles:
    def bad(self, path: Path, expected: str, max_pixels: int = 10**6) -> None:
        with pytest.raises(ImageReadError) as error:
            read_image(path, max_pixels)
        assert expected in message_of(error, path)

    def test_missing_folder_empty_and_special(self, tmp_path: Path) -> None:
        (tmp_path / "empty.png").touch()
        self.bad(tmp_path / "missing.png", "does not exist")
        self.bad(tmp_path, "is a folder")
        self.bad(tmp_path / "empty.png", "empty (zero bytes)")
        self.bad(Path("/dev/null"), "not a regular file")
        self.bad(tmp_path / ("n" * 300), "")

    @pytest.mark.parametrize(
        "content", [b"hello, world", b"GIF89a\1\0\1\0\0\0\0;", b"\x89PNG\r\n\x1a\n", b"II*\0", b"BM"]
    )
    def test_not_an_image(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.png").write_bytes(content)
        self.bad(tmp_path / "a.png", "")

    @pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp"])
    def test_truncated(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(bytes_image(64, 64)).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        self.bad(path, "")

    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_truncated_sixteen_bits(self, tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / f"a.{suffix}"
        write_image(path, random_image(3, 16, 40, 40), bits=16)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        self.bad(path, "truncated")
        assert capfd.readouterr().err == ""

    def test_zero_sized(self, tmp_path: Path) -> None:
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 5, 8, 2, 0, 0, 0))
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IEND", b""))
        self.bad(tmp_path / "a.png", "")
        self.bad(write_tiff(tmp_path / "a.tif", np.zeros((4, 4), np.uint16), t256=0), "has no pixels")

    def test_decompression_bomb_is_refused_by_its_header(self, tmp_path: Path) -> None:
        for depth in (8, 16):
            header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, depth, 2, 0, 0, 0))
            (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"0")))
            self.bad(tmp_path / "a.png", "60000 x 60000 pixels, more than the 200000000 allowed", 200_000_000)
        path = write_tiff(tmp_path / "a.tif", np.zeros((2, 2, 3), np.uint16), t256=60000, t257=60000)
        self.bad(path, "60000 x 60000")

    def test_floats_out_of_range(self, tmp_path: Path) -> None:
        for name, value, expected in (("nan", np.nan, "NaN"), ("big", 3.5, "from 0 to 3.5"), ("neg", -1.0, "from -1")):
            pixels = np.zeros((4, 4), np.float32)
            pixels[1, 2] = value
            Image.fromarray(pixels).save(tmp_path / f"{name}.tif")
            self.bad(tmp_path / f"{name}.tif", expected)
            tifffile.imwrite(tmp_path / f"{name}-rgb.tif", np.repeat(pixels[..., None], 3, 2), photometric="rgb")
            self.bad(tmp_path / f"{name}-rgb.tif", expected)

    def test_unusual_tiffs(self, tmp_path: Path) -> None:
        four = np.zeros((4, 4, 4), np.uint16)
        self.bad(write_tiff(tmp_path / "int.tif", np.zeros((4, 4), np.int32)), "32-bit integers")
        self.bad(write_tiff(tmp_path / "half.tif", np.zeros((4, 4), np.float16)), "unusual kind")
        self.bad(write_tiff(tmp_path / "cmyk.tif", four, t262=5), "unusual kind")
        self.bad(write_tiff(tmp_path / "planes.tif", four[..., :3], t284=2), "unusual kind")


class TestWriting:
    def test_bad_options(self, tmp_path: Path) -> None:
        image = torch.zeros(3, 4, 4)
        for name, bits, expected in (("a.gif", 8, "suffix"), ("a.jpg", 16, "16 bits"), ("a.png", 12, "choose 8 or 16")):
            with pytest.raises(OptionError, match=expected):
                write_image(tmp_path / name, image, bits=bits)
        with pytest.raises(OptionError, match="JSON"):
            write_image(tmp_path / "a.png", image, metadata={"tensor": image})
        with pytest.raises(OptionError, match="uint8"):
            write_image(tmp_path / "a.png", image.byte())
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("shape", [(4, 4), (2, 4, 4), (1, 3, 4, 4), (3, 0, 4)])
    def test_bad_shapes(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        with pytest.raises(ShapeError, match="channels"):
            write_image(tmp_path / "a.png", torch.zeros(shape))

    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    def test_non_finite(self, tmp_path: Path, value: float) -> None:
        with pytest.raises(NonFiniteError, match="NaN"):
            write_image(tmp_path / "a.png", torch.full((1, 2, 2), value))
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("suffix", ["jpg", "webp"])
    def test_larger_than_the_format_allows(self, tmp_path: Path, suffix: str) -> None:
        with pytest.raises(OutputError, match="encoded"):
            write_image(tmp_path / f"a.{suffix}", torch.zeros(1, 1, 70000))

    def test_missing_folder_and_folder_in_the_way(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="folder does not exist"):
            write_image(tmp_path / "none" / "a.png", torch.zeros(3, 4, 4))
        (tmp_path / "a.png").mkdir()
        with pytest.raises(OutputError, match="not a regular file"):
            write_image(tmp_path / "a.png", torch.zeros(3, 4, 4))
        with pytest.raises(OutputError, match="not a regular file"):
            atomic_write("/dev/null", b"x")
        with pytest.raises(OutputError):
            atomic_write(tmp_path / ("n" * 300), b"x")
        assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]

    @pytest.mark.parametrize("failing", ["replace", "write_bytes"])
    def test_a_full_disk_leaves_the_old_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
    ) -> None:
        def full(path: Path, *_: object) -> None:
            Path(path).touch()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        (tmp_path / "a.png").write_bytes(b"old")
        where: object = os if failing == "replace" else Path
        with monkeypatch.context() as patched:
            patched.setattr(where, failing, full)
            with pytest.raises(OutputError, match="No space left"):
                write_image(tmp_path / "a.png", torch.zeros(3, 4, 4))
        assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]
        assert (tmp_path / "a.png").read_bytes() == b"old"

    def test_an_interrupt_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            atomic_write(tmp_path / "a.png", b"new")
        assert not list(tmp_path.iterdir())

    @pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may write anywhere")
    def test_read_only_folder(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(OutputError, match="may write"):
            write_image(tmp_path / "a.png", torch.zeros(3, 4, 4))

    def test_broken_metadata(self, tmp_path: Path) -> None:
        for text in (b"{", b"[1]"):
            write_image(tmp_path / "a.png", torch.zeros(1, 2, 2))
            data = (tmp_path / "a.png").read_bytes()
            (tmp_path / "a.png").write_bytes(data[:33] + chunk(b"tEXt", b"deqir\0" + text) + data[33:])
            with pytest.raises(ImageReadError, match="metadata"):
                read_metadata(tmp_path / "a.png")


class TestFindingAndMasks:
    def test_folders_are_expanded_and_files_kept(self, tmp_path: Path) -> None:
        inside, hidden = tmp_path / "sub", tmp_path / ".cache"
        inside.mkdir()
        hidden.mkdir()
        for name in ("b.png", "a.JPG", ".c.png", "d.part", "e.txt", "sub/f.webp", "sub/.g.png", ".cache/h.png"):
            (tmp_path / name).write_bytes(b"x")
        assert find_images([tmp_path]) == [tmp_path / "a.JPG", tmp_path / "b.png"]
        assert find_images(str(tmp_path), recursive=True)[-1] == inside / "f.webp"
        assert len(find_images(tmp_path, recursive=True)) == 3
        assert find_images([tmp_path / "e.txt", inside]) == [tmp_path / "e.txt", inside / "f.webp"]

    def test_nothing_found(self, tmp_path: Path) -> None:
        with pytest.raises(ImageReadError, match="holds no image"):
            find_images([tmp_path])
        with pytest.raises(ImageReadError, match="does not exist"):
            find_images([tmp_path / "a.png"])

    def test_mask(self, tmp_path: Path) -> None:
        write_image(tmp_path / "m.png", torch.tensor([[0.0, 0.4, 0.6], [1.0, 0.0, 1.0]]).expand(3, 2, 3))
        mask = read_mask(tmp_path / "m.png", (2, 3))
        assert mask.shape == (1, 1, 2, 3) and mask.flatten().tolist() == [0, 0, 1, 1, 0, 1]
        with pytest.raises(ShapeError, match=r"3 x 2 pixels but the image is 2 x 3"):
            read_mask(tmp_path / "m.png", (3, 2))

    def test_black_mask(self, tmp_path: Path) -> None:
        write_image(tmp_path / "m.png", torch.zeros(1, 4, 4))
        with pytest.raises(OptionError, match="nothing is observed"):
            read_mask(tmp_path / "m.png", (4, 4))
