"""The controls of the page and the settings that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import gradio as gr

from deqir.operators.boundaries import Boundary
from deqir.tasks import BLURS, TASKS
from deqir.webui.settings import BRUSH, RULES, SOLVERS, SPACINGS, Limits, Settings

TASK_NAMES = {
    "Super-resolution": "sr",
    "Inpainting": "inpaint",
    "Deblurring": "deblur",
    "Denoising": "denoise",
    "Colourisation": "colorize",
    "Compressed sensing": "cs",
}
MASK_NAMES = {"paint it": BRUSH, "random pixels": "random", "a box": "box", "text": "text"}
DENOISING = 0.05


@dataclass(frozen=True, eq=False)
class Controls:
    """The components that hold settings, by the settings' names, and those that appear and disappear."""

    photo: gr.File
    bundled: gr.Button
    editor: gr.ImageEditor
    kernel: gr.HTML
    groups: Mapping[str, gr.Group]
    named: Mapping[str, Any]

    def asked(self, values: tuple[Any, ...]) -> dict[str, Any]:
        """The settings that the values of ``named`` mean; those of other tasks are left out."""
        given = dict(zip(self.named, values, strict=True))
        name = given.pop("task")
        own = {key: given[key] for key in TASKS[name].settings if key in given}
        others = {key: value for key, value in given.items() if key not in _TASK_SETTINGS}
        return {"task": {"name": name, **own}, **others}


_TASK_SETTINGS = ("scale", "downsampling", "mask", "hidden", "weights", "blur", "boundary", "ratio")


def build_controls(limits: Limits, priors: list[str]) -> Controls:
    """Lay the controls out in the column that is open. ``_TASK_SETTINGS`` must be among them."""
    named: dict[str, Any] = {}
    photo = gr.File(label="Photo", file_types=["image"], height=110, elem_id="photo")
    bundled = gr.Button("Take the bundled photo", size="sm")
    named["simulate"] = gr.Radio(
        [("damaged: restore it", False), ("good: damage it first, then compare", True)],
        value=False,
        label="The photo is",
    )
    named["task"] = gr.Dropdown(list(TASK_NAMES.items()), value="sr", label="Task", elem_id="task")
    editor, kernel, groups = _task_controls(named)
    named["noise"] = gr.Slider(
        0, 0.2, 0, step=0.005, label="Noise in the observation", info="standard deviation for values of 0 to 1"
    )
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
    return Controls(photo, bundled, editor, kernel, groups, named)


def _task_controls(named: dict[str, Any]) -> tuple[gr.ImageEditor, gr.HTML, dict[str, gr.Group]]:
    """The controls that belong to one task each; those of super-resolution are shown first."""
    groups = {}
    with gr.Group() as groups["sr"]:
        named["scale"] = gr.Dropdown([2, 3, 4, 6, 8], value=4, label="Factor of magnification")
        named["downsampling"] = gr.Radio(["average", "bicubic"], value="average", label="How the photo was reduced")
    with gr.Group(visible=False) as groups["inpaint"]:
        named["mask"] = gr.Radio(list(MASK_NAMES.items()), value=BRUSH, label="What is to be filled")
        editor = gr.ImageEditor(
            label="Paint over what is to be filled",
            sources=(),
            transforms=(),
            layers=False,
            brush=gr.Brush(colors=["#e11d74"], color_mode="fixed", default_size=16),
            height=360,
            elem_id="editor",
        )
        named["hidden"] = gr.Slider(0.05, 0.95, 0.5, step=0.05, label="Hidden share of the pixels", visible=False)
    with gr.Group(visible=False) as groups["deblur"]:
        named["blur"] = gr.Radio(list(BLURS), value="gaussian", label="Blur kernel")
        kernel = gr.HTML(elem_id="kernel")
        named["boundary"] = gr.Dropdown(list(get_args(Boundary)), value="circular", label="Beyond the border")
    with gr.Group(visible=False) as groups["colorize"]:
        named["weights"] = gr.Radio(["mean", "luma"], value="mean", label="How grey was made")
    with gr.Group(visible=False) as groups["cs"]:
        named["ratio"] = gr.Slider(0.05, 1, 0.25, step=0.05, label="Measurements per pixel")
    return editor, kernel, groups


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
    named["seed"] = gr.Number(0, precision=0, minimum=0, label="Seed")
