"""What photo files hold beside their colours: opacity, profiles, camera data, frames; read, fitted, written again."""

import struct
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import IFDRational

from deqir.errors import ImageReadError
from deqir.images import Attachments, frame_count, read_image, read_photo, write_image

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY_PROFILE = SRGB[:16] + b"GRAY" + SRGB[20:]


def pixels(height=6, width=8, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def colours(array, peak=255):
    image = torch.from_numpy(array.astype(np.float32)) / peak
    return image[None] if image.ndim == 2 else image.permute(2, 0, 1)


def camera_data(orientation=6):
    exif = Image.Exif()
    exif[274], exif[271], exif[256] = orientation, "maker", 999
    exif[0x8769] = {0x829A: IFDRational(1, 250), 0xA002: 4000, 0x927C: b"secret" * 10}
    exif[0x8825] = {1: "N"}
    return exif


class TestOpacity:
    @pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
    def test_alpha_is_read_and_written(self, tmp_path, suffix):
        rgba = pixels(channels=4)
        Image.fromarray(rgba).save(tmp_path / f"a.{suffix}", lossless=True, exact=True)
        photo = read_photo(tmp_path / f"a.{suffix}")
        assert torch.equal(photo.attachments.alpha, colours(rgba[..., 3]))
        write_image(tmp_path / f"b.{suffix}", photo.image, attachments=photo.attachments)
        again = read_photo(tmp_path / f"b.{suffix}")
        assert torch.equal(again.attachments.alpha, photo.attachments.alpha)
        if suffix != "webp":  # which changes what nobody sees
            assert torch.equal(again.image, photo.image)

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_sixteen_bits_of_it(self, tmp_path, channels, suffix):
        values = torch.randint(0, 65536, (channels + 1, 5, 7), generator=torch.Generator().manual_seed(0)) / 65535
        path = tmp_path / f"a.{suffix}"
        write_image(path, values[:channels], bits=16, attachments=Attachments(values[channels:]))
        if (suffix, channels) == ("tif", 1):
            import tifffile

            assert torch.equal(colours(tifffile.imread(path).astype(np.int32), 65535), values)
        else:
            photo = read_photo(path)
            assert torch.equal(photo.image, values[:channels].expand(3, -1, -1) if suffix == "png" else values[:3])
            assert torch.equal(photo.attachments.alpha, values[channels:])

    def test_it_is_resized_with_the_photo(self, tmp_path):
        alpha = torch.zeros(1, 4, 6)
        alpha[..., 3:] = 1
        write_image(tmp_path / "a.png", torch.rand(1, 12, 18), attachments=Attachments(alpha))
        photo = read_photo(tmp_path / "a.png")
        assert photo.image.shape == (1, 12, 18)
        opacity = photo.attachments.alpha[0]
        assert bool((opacity[:, :6] == 0).all()) and bool((opacity[:, 12:] == 1).all())
        assert bool((opacity.diff(dim=1) >= 0).all())

    def test_transparent_colours_and_palettes(self, tmp_path):
        Image.fromarray(pixels()).quantize(4).save(tmp_path / "p.png", transparency=bytes([0, 128]))
        assert sorted(set((read_photo(tmp_path / "p.png").attachments.alpha * 255).flatten().tolist())) == [0, 128, 255]
        grey = np.array([[0, 7], [7, 255]], np.uint8)
        Image.fromarray(grey).save(tmp_path / "l.png", transparency=7)
        photo = read_photo(tmp_path / "l.png")
        assert photo.image.shape[0] == 1
        assert photo.attachments.alpha.flatten().tolist() == [1, 0, 0, 1]

    def test_opaque_files_have_none(self, tmp_path):
        Image.fromarray(np.dstack([pixels(), np.full((6, 8), 255, np.uint8)])).save(tmp_path / "a.png")
        assert read_photo(tmp_path / "a.png").attachments.alpha is None

    def test_it_is_turned_with_the_photo(self, tmp_path):
        rgba = pixels(channels=4)
        Image.fromarray(rgba).save(tmp_path / "a.png", exif=camera_data())
        photo = read_photo(tmp_path / "a.png")
        assert torch.equal(photo.image, colours(np.rot90(rgba[..., :3], -1).copy()))
        assert torch.equal(photo.attachments.alpha, colours(np.rot90(rgba[..., 3], -1).copy()))

    def test_jpeg_leaves_it_out(self, tmp_path):
        write_image(tmp_path / "a.jpg", torch.rand(3, 8, 8), attachments=Attachments(torch.zeros(1, 8, 8)))
        assert read_photo(tmp_path / "a.jpg").attachments.alpha is None


class TestProfilesAndCameraData:
    @pytest.mark.parametrize(
        ("suffix", "bits"), [("png", 8), ("png", 16), ("tif", 8), ("tif", 16), ("jpg", 8), ("webp", 8)]
    )
    def test_profile_and_camera_data_are_kept(self, tmp_path, suffix, bits):
        Image.fromarray(pixels()).save(tmp_path / "a.jpg", icc_profile=SRGB, exif=camera_data())
        photo = read_photo(tmp_path / "a.jpg")
        assert photo.image.shape == (3, 8, 6)
        path = tmp_path / f"b.{suffix}"
        write_image(path, photo.image, bits, {"a": 1}, photo.attachments)
        again = read_photo(path)
        assert again.attachments.icc_profile == SRGB
        assert again.image.shape == (3, 8, 6)  # not turned a second time
        if (suffix, bits) == ("tif", 16):
            return
        with Image.open(path) as image:
            exif = image.getexif()
            assert exif[271] == "maker" and exif.get(274, 1) == 1 and exif.get(256) != 999
            assert dict(exif.get_ifd(0x8769)) == {0x829A: 1 / 250}
            assert exif.get_ifd(0x8825)[1] == "N"

    def test_profiles_of_other_colours_are_left_out(self, tmp_path):
        for profile, channels, kept in ((SRGB, 1, None), (GREY_PROFILE, 3, None), (GREY_PROFILE, 1, GREY_PROFILE)):
            write_image(tmp_path / "a.png", torch.rand(channels, 4, 4), attachments=Attachments(icc_profile=profile))
            assert read_photo(tmp_path / "a.png").attachments.icc_profile == kept

    def test_a_grey_profile_is_left_out_where_grey_is_stored_as_colour(self, tmp_path):
        image, attachments = torch.rand(1, 4, 4), Attachments(torch.rand(1, 4, 4), GREY_PROFILE)
        for name, bits, kept in (("a.webp", 8, None), ("a.png", 16, None), ("b.png", 8, GREY_PROFILE)):
            write_image(tmp_path / name, image, bits, attachments=attachments)
            assert read_photo(tmp_path / name).attachments.icc_profile == kept

    def test_cmyk_is_converted_by_its_profile(self, tmp_path, monkeypatch):
        image = Image.new("CMYK", (4, 4), (255, 0, 0, 0))
        image.save(tmp_path / "a.tif", icc_profile=b"not a profile")
        photo = read_photo(tmp_path / "a.tif")
        assert photo.attachments.icc_profile is None
        assert photo.image.mean((1, 2)).tolist() == [0, 1, 1]
        asked = []

        def by_profile(image, source, target, outputMode):
            asked.append((image.mode, outputMode))
            return Image.new("RGB", image.size, (0, 51, 102))

        monkeypatch.setattr(ImageCms, "profileToProfile", by_profile)
        image.save(tmp_path / "b.tif", icc_profile=SRGB)
        assert (read_image(tmp_path / "b.tif").mean((1, 2)) * 255).tolist() == pytest.approx([0, 51, 102])
        assert asked == [("CMYK", "RGB")]

    def test_damaged_camera_data_does_not_stop_a_photo(self, tmp_path):
        Image.fromarray(pixels()).save(
            tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x87\x69\0\4\0\0\0\1\xff\xff"
        )
        photo = read_photo(tmp_path / "a.jpg")
        assert photo.image.shape == (3, 6, 8)

    def test_camera_data_too_long_for_jpeg_is_left_out(self, tmp_path):
        exif = Image.Exif()
        exif[270] = "x" * 70_000
        write_image(tmp_path / "a.jpg", torch.rand(3, 8, 8), attachments=Attachments(exif=exif.tobytes()))
        with Image.open(tmp_path / "a.jpg") as image:
            assert not image.getexif()


class TestFrames:
    @pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
    def test_every_frame_is_read(self, tmp_path, suffix):
        frames = [Image.new("RGB", (5, 4), (60 * k, 0, 255)) for k in range(4)]
        path = tmp_path / f"a.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
        assert frame_count(path) == 4
        reds = [
            float(read_image(path)[0].mean()) if k == 0 else float(read_photo(path, k).image[0].mean())
            for k in range(4)
        ]
        assert reds == pytest.approx([0, 60 / 255, 120 / 255, 180 / 255], abs=0.01)
        with pytest.raises(ImageReadError, match=r"there is no (page|frame) 5, choose an earlier one"):
            read_photo(path, 4)

    @pytest.mark.parametrize(("byteorder", "bigtiff"), [("<", False), (">", False), ("<", True)])
    def test_deep_pages_of_any_size(self, tmp_path, byteorder, bigtiff):
        import tifffile

        path = tmp_path / "a.tif"
        generator = np.random.default_rng(0)
        pages = [generator.integers(0, 65536, (4 + k, 5, 3), dtype=np.uint16) for k in range(3)]
        with tifffile.TiffWriter(path, byteorder=byteorder, bigtiff=bigtiff) as writer:
            for k, page in enumerate(pages):
                writer.write(page, photometric="rgb", metadata=None)
                if k == 1:  # a preview, which is no page
                    writer.write(page[::2, ::2].copy(), photometric="rgb", metadata=None, subfiletype=1)
        assert frame_count(path) == 3
        for k, page in enumerate(pages):
            assert torch.equal(read_photo(path, k).image, colours(page.astype(np.int32), 65535))

    def test_a_loop_of_pages_ends(self, tmp_path):
        buffer = BytesIO()
        Image.fromarray(pixels()).save(buffer, "TIFF")
        data = bytearray(buffer.getvalue())
        (first,) = struct.unpack_from("<I", data, 4)
        (count,) = struct.unpack_from("<H", data, first)
        struct.pack_into("<I", data, first + 2 + 12 * count, first)
        (tmp_path / "a.tif").write_bytes(data)
        assert frame_count(tmp_path / "a.tif") == 1

    def test_a_phone_s_second_picture_is_no_frame(self, tmp_path):
        pictures = [Image.fromarray(pixels(16, 16, seed=k)) for k in range(2)]
        pictures[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=pictures[1:])
        assert frame_count(tmp_path / "a.jpg") == 1
        assert read_image(tmp_path / "a.jpg").shape == (3, 16, 16)
