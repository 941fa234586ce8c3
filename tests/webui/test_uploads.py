"""Uploads and painted masks."""

import numpy as np
import pytest
import torch

from deqir.errors import ImageReadError, OptionError
from deqir.images import read_image, write_image

pytest.importorskip("gradio", reason="the web page needs the extra deqir[ui]")

from deqir.webui.photos import painted_mask, read_photo, stage, stem_of
from deqir.webui.settings import Limits, Settings

LIMITS = Limits(side=128, steps=10, file_bytes=100_000, photo_pixels=10_000)


def test_bad_uploads_are_refused_without_the_servers_paths(tmp_path):
    with pytest.raises(OptionError, match="There is no photo yet"):
        read_photo(None, LIMITS)
    text = tmp_path / "text.png"
    text.write_text("no image")
    large = tmp_path / "large.png"
    write_image(large, torch.rand(1, 101, 100))
    cases = [(text, "text.png is not a readable"), (large, "more than the 10000"), (tmp_path / "gone.png", "upload it")]
    for file, message in cases:
        with pytest.raises(ImageReadError, match=message) as raised:
            read_photo(str(file), LIMITS)
        assert str(tmp_path) not in str(raised.value)
    large.write_bytes(bytes(100_001))
    with pytest.raises(OptionError, match=r"large.png has 0 MB, more than the 0.1 MB"):
        read_photo(str(large), LIMITS)


def test_what_is_painted_is_filled():
    layer = np.zeros((4, 6, 4), np.uint8)
    layer[1:3, 2:4] = 255
    mask = painted_mask({"layers": [layer], "background": None}, (4, 6))
    assert mask.shape == (1, 4, 6) and mask.sum() == 20 and mask[0, 1:3, 2:4].sum() == 0
    assert painted_mask({"layers": [layer]}, (2, 3)).tolist() == [[[1, 0, 1], [1, 0, 1]]]  # touched is filled
    assert painted_mask(None, (2, 3)).all()


PRIORS = ("builtin", "other")


def test_a_painted_mask_becomes_the_task(tmp_path):
    settings = Settings.checked({"task": {"name": "inpaint", "mask": "brush"}}, Limits(), PRIORS)
    photo, mask = torch.rand(3, 4, 6), torch.ones(1, 4, 6)
    with pytest.raises(OptionError, match="Nothing is painted"):
        stage(photo, settings, mask, tmp_path)
    with pytest.raises(OptionError, match="whole photo is painted over"):
        stage(photo, settings, torch.zeros(1, 4, 6), tmp_path)
    mask[0, 1, 2] = 0
    file, task = stage(photo, settings, mask, tmp_path)
    torch.testing.assert_close(read_image(file), photo, rtol=0, atol=1e-5)
    assert torch.equal(read_image(task["mask"]), mask)


@pytest.mark.parametrize(
    ("path", "stem"), [(None, "photo"), ("/a/my photo.v2.jpg", "my-photo-v2"), ("..png", "photo"), ("é_1.png", "é_1")]
)
def test_downloads_are_named_after_the_photo(path, stem):
    assert stem_of(path) == stem
