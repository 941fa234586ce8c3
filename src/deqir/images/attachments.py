"""What a photo's file holds beside its colours: opacity, colour profile, camera data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from io import BytesIO

from PIL import ExifTags, Image, ImageCms
from torch import Tensor
from torch.nn.functional import interpolate

_PROFILE_SPACES = {b"RGB ": 3, b"GRAY": 1}

# Description, make, model, software, date, artist, copyright: what else the main directory may hold is about the
# pixels as they were stored, and no longer true.
_KEPT_TAGS = (270, 271, 272, 305, 306, 315, 33432)
# Width, height, interoperability offset and maker note: stale, or full of offsets into the old file.
_STALE_CAMERA_TAGS = (0xA002, 0xA003, 0xA005, 0x927C)


@dataclass(frozen=True, eq=False)
class Attachments:
    """``alpha`` (1, H, W) in [0, 1], upright, or None where all is opaque; ``icc_profile``; ``exif``; ``bits``.

    The EXIF data is cleaned: no orientation, for the pixels are upright, no thumbnail, no maker note. The file had
    ``bits`` a channel: 8, or 16 for all that is finer; ``write_image`` does not heed it.
    """

    alpha: Tensor | None = None
    icc_profile: bytes | None = None
    exif: bytes | None = None
    bits: int = 8

    def fitted(self, shape: tuple[int, ...]) -> Attachments:
        """The attachments for an image of ``shape`` (C, H, W) made from this one.

        Opacity is resized (bicubic); a colour profile for another number of channels is left out.
        """
        alpha = self.alpha
        if alpha is not None and alpha.shape[1:] != shape[1:]:
            alpha = interpolate(alpha[None], size=tuple(shape[1:]), mode="bicubic", antialias=True)[0].clamp(0, 1)
        profile = self.icc_profile if profile_channels(self.icc_profile) == shape[0] else None
        return replace(self, alpha=alpha, icc_profile=profile)


def profile_channels(profile: bytes | None) -> int | None:
    """3 for an RGB profile, 1 for a grey one, None for any other (the header names the colour space, ICC.1 7.2.6)."""
    return None if profile is None else _PROFILE_SPACES.get(profile[16:20])


def kept_exif(image: Image.Image) -> bytes | None:
    """The EXIF data of an open file that stays true of its restoration; None where there is none, or it is damaged."""
    try:
        source, kept = image.getexif(), Image.Exif()
        for tag in _KEPT_TAGS:
            if tag in source:
                kept[tag] = source[tag]
        for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            entries = {k: v for k, v in source.get_ifd(directory).items() if k not in _STALE_CAMERA_TAGS}
            if entries:
                kept[directory] = entries
        return kept.tobytes() if len(kept) else None
    except Exception:  # a camera's mistakes are no reason to refuse its photo
        return None


def rgb_from_cmyk(image: Image.Image, profile: bytes | None) -> Image.Image:
    """A CMYK image in sRGB, by its profile where that is usable, else by Pillow's plain formula."""
    if profile is not None:
        try:
            source, target = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError):
            pass
    return image.convert("RGB")
