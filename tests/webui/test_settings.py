"""What a visitor may ask for: settings and their limits."""

import json
import re
from pathlib import Path

import pytest
import torch

from deqir.errors import OptionError

pytest.importorskip("gradio", reason="the web page needs the extra deqir[ui]")

from deqir.webui.photos import reduced
from deqir.webui.settings import Limits, Settings

LIMITS = Limits(side=128, steps=10, file_bytes=100_000, photo_pixels=10_000)


PRIORS = ("builtin", "other")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 11}, "steps is 11; choose from 1 to 10"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 3.5}, "the setting steps is 3.5"),
        ({"steps": True}, "the setting steps is True"),
        ({"side": 129}, "side is 129; choose from 1 to 128"),
        ({"prior": "/etc"}, "prior is '/etc'; choose one of builtin, other"),
        ({"solver": "magic"}, "solver is 'magic'; choose one of auto"),
        ({"spacing": "odd"}, "spacing is 'odd'"),
        ([], "the settings are []; give an object"),
        ({"seed": -1}, "seed is -1; choose from 0"),
        ({"colour": 1}, "the setting 'colour' is unknown"),
        ({"noise": -1.0}, "the noise level is -1.0"),
        ({"task": "sing"}, "task is 'sing'"),
        ({"task": 3}, "task is 3"),
        ({"task": {"scale": 2}}, "give its name"),
        ({"task": {"name": "inpaint", "mask": "/etc/passwd"}}, "mask is '/etc/passwd'; choose one of random"),
        ({"task": {"name": "deblur", "blur": "/etc/passwd"}}, "blur is '/etc/passwd'; choose one of gaussian"),
        ({"task": {"name": "sr", "scale": 0}}, "scale"),
        ({"task": "cs"}, "no compressed-sensing observation"),
        ({"task": "denoise"}, "task denoise needs the noise level"),
        ({"noise": "some"}, "the noise level is 'some'"),
        ({"noise": "auto", "simulate": True}, "give a number instead of auto"),
        ({"tile": 4}, "tile is 4; choose auto, none or a whole number"),
        ({"tile": "some"}, "tile is 'some'"),
        ({"tile_overlap": -1}, "tile_overlap is -1"),
        ({"tile_overlap": True}, "the setting tile_overlap is True"),
        ({"travel_length": 0}, "travel_length is 0"),
        ({"average": -0.1}, "average is -0.1"),
        ({"steps": 6, "travel_repeat": 2}, "6 steps, walked 2 times, are more than 10"),
        ({"steps": 6, "task": "old-photo"}, "6 steps, walked 2 times, are more than 10"),
        ({"reference": "/etc/passwd"}, "reference is '/etc/passwd'; choose one of colours, picture"),
        ({"iterations": 31}, "iterations is 31; choose from 1 to 30"),
        ({"task": {"name": "inpaint", "mask": "detect"}}, "mask is 'detect'; choose one of random"),
        ({"task": {"name": "old-photo", "mask": "/etc/passwd"}, "steps": 5}, "mask is '/etc/passwd'"),
        ({"task": {"name": "sr", "scale": 600}, "side": 64}, "scale is 600, more than the 64 pixels"),
        ({"task": {"name": "old-photo", "scale": 65, "mask": "box"}, "side": 64, "steps": 5}, "scale is 65, more than"),
        ({"task": {"name": "inpaint", "mask_seed": 10**30}}, "the setting mask_seed is no number in reach"),
        ({"task": {"name": "inpaint", "mask_seed": -1}}, "mask_seed is -1; choose from 0"),
        ({"noise": 10**400}, "the setting noise is no number in reach"),
        ({"noise": float("inf")}, "the setting noise is no number in reach"),
        ({"tolerance": 10**5000}, "the setting tolerance is no number in reach"),
        ({"eta": float("nan")}, "the setting eta is no number in reach"),
        ({"tile": 10**30}, "the setting tile is no number in reach"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(given, message):
    with pytest.raises(OptionError, match=re.escape(message)) as raised:
        Settings.checked(given, LIMITS, PRIORS)
    assert "\n" not in str(raised.value)


def test_settings_survive_json():
    given = {"task": {"name": "inpaint", "mask": "brush"}, "steps": 7, "noise": 0.1, "simulate": True, "seed": 3}
    settings = Settings.checked({**given, "side": 64}, LIMITS, PRIORS)
    assert Settings.checked(json.loads(json.dumps(settings.to_json())), LIMITS, PRIORS) == settings
    assert settings.has_brush and settings.options("cpu")["steps"] == 7
    assert "travel_repeat" not in settings.options("cpu")  # the task's own
    tiled = {
        "tile": "none",
        "tile_overlap": 4,
        "travel_length": 2,
        "travel_repeat": 3,
        "steps": 3,
        "noise": "auto",
        "average": 0.05,
    }
    options = Settings.checked(tiled, LIMITS, PRIORS).options("cpu")
    names = ("tile", "tile_overlap", "travel_length", "travel_repeat", "average")
    assert [options[name] for name in names] == [None, 4, 2, 3, 0.05]
    with pytest.raises(OptionError, match="the limit steps is 0"):
        Limits(steps=0)


def test_the_result_has_the_side_asked_for():
    small = Settings.checked({"task": {"name": "sr", "scale": 3}, "side": 60}, LIMITS, PRIORS)
    assert small.photo_side == 20
    assert Settings.checked({**small.to_json(), "simulate": True}, LIMITS, PRIORS).photo_side == 60
    old = Settings.checked({"task": {"name": "old-photo", "scale": 2}, "side": 60, "steps": 5}, LIMITS, PRIORS)
    assert old.photo_side == 30
    assert Settings.checked({"task": "old-photo", "side": 60, "steps": 5}, LIMITS, PRIORS).photo_side == 60
    assert reduced(torch.rand(3, 40, 90), 45).shape == (3, 20, 45)
    photo = torch.rand(3, 8, 4)
    assert reduced(photo, 8) is photo
    torch.testing.assert_close(reduced(photo, 4), torch.nn.functional.avg_pool2d(photo, 2))


def test_a_task_that_is_no_longer_offered_is_judged_by_its_sentence_alone():
    """An event may be on its way when the choices change; and the class leaves no stub file beside the source."""
    from deqir.webui import controls

    task = controls.TaskDropdown([("Denoising", "denoise")], value="denoise")
    assert task.preprocess("cs") == "cs" and task.get_block_name() == "dropdown"
    assert not Path(controls.__file__).with_suffix(".pyi").exists()
