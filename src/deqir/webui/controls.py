"""The controls of the page and the settings that they make."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import gradio as gr

from deqir.old_photo import DETECT
from deqir.operators.boundaries import Boundary
from deqir.tasks import BLURS, WIDEST_BLUR
from deqir.webui.settings import AUTO, BRUSH, NO_TILES, RULES, SOLVERS, SPACINGS, Limits, Settings

TASK_NAMES = {
    "Super-resolution": "sr",
    "Inpainting": "inpaint",
    "Deblurring": "deblur",
    "Denoising": "denoise",
    "Colourisation": "colorize",
    "Compressed sensing": "cs",
    "Old photo": "old-photo",
    "Whatever is wrong with it": "auto",
}
OBSERVED_NAMES = {label: name for label, name in TASK_NAMES.items() if name != "cs"}
"""The tasks of a damaged photo, which is no compressed-sensing observation."""
MASK_NAMES = {"paint it": BRUSH, "random pixels": "random", "a box": "box", "text": "text"}
DAMAGE_NAMES = {"find them": DETECT, "paint them": BRUSH, "scratches, for a good photo": "scratches"}
DENOISING = 0.05
ESTIMATE = "estimate"
"""The name of the switch for ``noise`` auto; no setting of its own."""


def _as_it_comes(self: Any, payload: Any) -> Any:
    """What the browser sends; ``Settings.checked`` judges it."""
    return payload


TaskDropdown: Any = ABCMeta.__new__(
    type(gr.Dropdown),
    "TaskDropdown",
    (gr.Dropdown,),
    {"__module__": __name__, "is_template": True, "preprocess": _as_it_comes},
)
"""A dropdown whose choices may change while an event with an earlier one is on its way: Gradio would raise an error.

Made past Gradio's metaclass, which writes a stub file beside the source of a new component.
"""


@dataclass(frozen=True, eq=False)
class Controls:
    """The components that hold settings, by the settings' names, and those that appear and disappear.

    A setting of a task is named ``task.setting``.
    """

    photo: gr.File
    bundled: gr.Button
    reference: gr.File
    editor: gr.ImageEditor
    mask_file: gr.File
    find: gr.Button
    kernel: gr.HTML
    groups: Mapping[str, gr.Group]
    named: Mapping[str, Any]

    def asked(self, values: tuple[Any, ...]) -> dict[str, Any]:
        """The settings that the values of ``named`` mean; those of other tasks are left out."""
        given = dict(zip(self.named, values, strict=True))
        name = given.pop("task")
        if given.pop(ESTIMATE):
            given["noise"] = AUTO
        if given["tile_overlap"] == AUTO:
            given["tile_overlap"] = None
        own = {key.partition(".")[2]: value for key, value in given.items() if key.startswith(f"{name}.")}
        others = {key: value for key, value in given.items() if "." not in key}
        return {"task": {"name": name, **own}, **others}


def build_controls(limits: Limits, priors: list[str]) -> Controls:
    """Lay the controls out in the column that is open."""
    named: dict[str, Any] = {}
    photo = gr.File(label="Photo", file_types=["image"], height=130, elem_id="photo")
    bundled = gr.Button("Take the bundled photo", size="sm")
    named["simulate"] = gr.Radio(
        [("damaged: restore it", False), ("good: damage it first, then compare", True)],
        value=False,
        label="The photo is",
    )
    named["task"] = TaskDropdown(list(OBSERVED_NAMES.items()), value="sr", label="Task", elem_id="task")
    kernel, find, groups = _task_controls(named)
    editor = _editor()
    mask_file = _mask_file()
    named["noise"] = gr.Slider(
        0, 0.2, 0, step=0.005, label="Noise in the observation", info="standard deviation for values of 0 to 1"
    )
    named[ESTIMATE] = gr.Checkbox(False, label="Estimate the noise from the photo")
    named["side"] = gr.Slider(
        min(64, limits.side),
        limits.side,
        min(Settings.side, limits.side),
        step=8,
        label="Longest side of the result",
        info="pixels; larger photos are reduced",
    )
    with gr.Accordion("Chain and solver", open=False):
        _chain_controls(named, limits, priors)
    with gr.Accordion("Tiles and time travel", open=False):
        _tile_controls(named)
    with gr.Accordion("Reference photo", open=False):
        reference = _reference_controls(named, limits)
    return Controls(photo, bundled, reference, editor, mask_file, find, kernel, groups, named)


def _editor() -> gr.ImageEditor:
    return gr.ImageEditor(
        label="Paint over what is to be filled",
        visible=False,
        sources=(),
        transforms=(),
        layers=False,
        brush=gr.Brush(colors=["#e11d74"], color_mode="fixed", default_size=16),
        height=360,
        elem_id="editor",
    )


def _mask_file() -> gr.File:
    return gr.File(
        label="Or a mask from a file: black is filled, white kept",
        file_types=["image"],
        height=130,
        visible=False,
        elem_id="mask",
    )


def _task_controls(named: dict[str, Any]) -> tuple[gr.HTML, gr.Button, dict[str, gr.Group]]:
    """The controls that belong to one task each; those of super-resolution are shown first."""
    groups = {}
    with gr.Group() as groups["sr"]:
        named["sr.scale"] = gr.Dropdown([2, 3, 4, 6, 8], value=4, label="Factor of magnification")
        named["sr.downsampling"] = gr.Radio(["average", "bicubic"], value="average", label="How the photo was reduced")
    with gr.Group(visible=False) as groups["inpaint"]:
        named["inpaint.mask"] = gr.Radio(list(MASK_NAMES.items()), value=BRUSH, label="What is to be filled")
        named["inpaint.hidden"] = gr.Slider(
            0.05, 0.95, 0.5, step=0.05, label="Hidden share of the pixels", visible=False
        )
    with gr.Group(visible=False) as groups["deblur"]:
        named["deblur.blur"] = gr.Radio(list(BLURS), value="gaussian", label="Blur kernel")
        kernel = gr.HTML(elem_id="kernel")
        named["deblur.boundary"] = gr.Dropdown(list(get_args(Boundary)), value="circular", label="Beyond the border")
    with gr.Group(visible=False) as groups["colorize"]:
        named["colorize.weights"] = gr.Radio(["mean", "luma"], value="mean", label="How grey was made")
    with gr.Group(visible=False) as groups["cs"]:
        named["cs.ratio"] = gr.Slider(0.05, 1, 0.25, step=0.05, label="Measurements per pixel")
    with gr.Group(visible=False) as groups["old-photo"]:
        find = _old_photo_controls(named)
    with gr.Group(visible=False) as groups["auto"]:
        named["auto.blur_width"] = gr.Slider(
            0, WIDEST_BLUR, 0, step=0.1, label="Width of the blur", info="pixels, if you know it; 0: estimated"
        )
    return kernel, find, groups


def _old_photo_controls(named: dict[str, Any]) -> gr.Button:
    named["old-photo.mask"] = gr.Radio(list(DAMAGE_NAMES.items()), value=DETECT, label="Scratches and stains")
    find = gr.Button("Find them, then edit what was found", size="sm", elem_id="find")
    named["old-photo.scale"] = gr.Dropdown([1, 2, 4], value=1, label="Enlarge the old photo")
    named["old-photo.colorize"] = gr.Checkbox(False, label="Find colours for a grey or yellowed photo")
    named["old-photo.fading"] = gr.Radio([("undo it", AUTO), ("leave it", "none")], value=AUTO, label="Fading")
    return find


def _chain_controls(named: dict[str, Any], limits: Limits, priors: list[str]) -> None:
    named["prior"] = gr.Dropdown(priors, value=priors[0], label="Prior")
    named["steps"] = gr.Slider(1, limits.steps, min(20, limits.steps), step=1, label="Steps", elem_id="steps")
    named["solver"] = gr.Dropdown(
        list(SOLVERS), value="auto", label="Solver", info="auto measures this machine: serial or preconditioned"
    )
    named["eta"] = gr.Slider(0, 1, Settings.eta, step=0.05, label="Fresh noise per step (eta)")
    named["tolerance"] = gr.Slider(
        0.05, 4, Settings.tolerance, step=0.05, label="Tolerance", info="grey levels to the serial answer"
    )
    named["spacing"] = gr.Dropdown(list(SPACINGS), value=Settings.spacing, label="Spacing of the timesteps")
    named["rule"] = gr.Dropdown(
        list(RULES), value=Settings.rule, label="Rule", info="how the observation enters; auto goes by its noise"
    )
    named["average"] = gr.Slider(
        0,
        0.2,
        Settings.average,
        step=0.01,
        label="Average",
        info="of the estimates up to this noise; 0: the last state",
    )
    named["seed"] = gr.Number(0, precision=0, minimum=0, label="Seed")


def _tile_controls(named: dict[str, Any]) -> None:
    tiles: list[Any] = [("automatic: large photos in tiles", AUTO), ("never", NO_TILES), 32, 64, 96, 128, 192, 256, 512]
    named["tile"] = gr.Dropdown(
        tiles, value=AUTO, label="Tile size", info="pixels that the network sees at once", elem_id="tile"
    )
    named["tile_overlap"] = gr.Dropdown(
        [("an eighth of the tile", AUTO), 0, 8, 16, 32, 64], value=AUTO, label="Tile overlap", info="pixels at least"
    )
    named["travel_length"] = gr.Slider(
        1, 20, 1, step=1, label="Time travel: length", info="steps that the chain goes back at a time"
    )
    named["travel_repeat"] = gr.Slider(
        1, 5, 1, step=1, label="Time travel: repeats", info="times that it walks them; 1 is no time travel"
    )


def _reference_controls(named: dict[str, Any], limits: Limits) -> gr.File:
    reference = gr.File(label="Reference photo", file_types=["image"], height=130, elem_id="reference")
    named["reference"] = gr.Radio(
        [("its colours", "colours"), ("the picture itself", "picture")],
        value=Settings.reference,
        label="What the result takes from it",
        info="where the observation leaves it open",
    )
    named["iterations"] = gr.Slider(
        1,
        limits.iterations,
        min(Settings.iterations, limits.iterations),
        step=1,
        label="Iterations",
        info="each costs about three restorations",
    )
    return reference
