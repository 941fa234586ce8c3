"""The page: its layout, and which control does what."""

from __future__ import annotations

from typing import Any

import gradio as gr

from deqir.old_photo import TRAVEL
from deqir.tasks import BLURS
from deqir.webui import looks
from deqir.webui.actions import WELCOME
from deqir.webui.controls import ESTIMATE, build_controls
from deqir.webui.display import build_display
from deqir.webui.runs import Runs
from deqir.webui.workbench import Workbench

UPLOAD_AGE = 3600
"""Seconds after which an upload is deleted although its visitor is still there."""

_SOLVES: dict[str, Any] = {"concurrency_id": "solve", "concurrency_limit": 1}
_PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def build_page(workbench: Workbench) -> gr.Blocks:
    """The page of ``workbench``; its one public endpoint is ``/restore``."""
    page = gr.Blocks(title=looks.TITLE, analytics_enabled=False, delete_cache=(60, UPLOAD_AGE))
    with page:
        gr.Markdown(looks.INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                controls = build_controls(workbench.limits, list(workbench.sources))
            with gr.Column(scale=3, min_width=320):
                display = build_display(WELCOME)
        actions = Runs(workbench, controls, display)
        page.load(actions.enter, **_PRIVATE)
        page.unload(actions.leave)
        _connect_controls(page, actions)
        _connect_solve(actions)
    return page


def _connect_controls(page: gr.Blocks, actions: Runs) -> None:
    """Controls that show other controls, and the preview that follows them all."""
    controls, named = actions.controls, actions.controls.named
    task, blur, masks = named["task"], named["deblur.blur"], [named["inpaint.mask"], named["old-photo.mask"]]
    controls.bundled.click(actions.take_bundled, task, [controls.photo, named["simulate"]], **_PRIVATE)
    suited = [named[name] for name in ("noise", ESTIMATE, *TRAVEL)]
    named["simulate"].change(actions.choose_kind, [named["simulate"], task], task, **_PRIVATE)
    task.change(actions.choose_task, [task, named["noise"]], [*controls.groups.values(), *suited], **_PRIVATE)
    named[ESTIMATE].change(
        lambda estimated: gr.update(interactive=not estimated), named[ESTIMATE], named["noise"], **_PRIVATE
    )
    masked = [component.change for component in (task, *masks)]
    changed = [controls.editor, controls.mask_file, named["inpaint.hidden"]]
    gr.on(masked, actions.choose_mask, [task, *masks], changed, **_PRIVATE)
    gr.on([page.load, blur.change], lambda name: looks.kernel(name, BLURS[name]()), blur, controls.kernel, **_PRIVATE)
    inputs, latest = [controls.photo, *named.values()], {"trigger_mode": "always_last", **_PRIVATE}
    shown = [component.change for component in inputs]
    gr.on(shown, actions.preview, inputs, actions.display.components, **latest)
    edited = [component.change for component in (controls.photo, task, named["side"], named["old-photo.scale"])]
    edited += [mask.input for mask in masks]  # a change by "find" brings its own painting
    gr.on(edited, actions.fill_editor, [controls.mask_file, *inputs], controls.editor, **latest)
    found = [controls.editor, controls.mask_file, named["old-photo.mask"], actions.display.status]
    controls.find.click(actions.find_damage, inputs, found, **_PRIVATE)
    painted = [controls.editor, actions.display.status]
    controls.mask_file.change(actions.take_mask, [controls.mask_file, *inputs], painted, **_PRIVATE)
    controls.reference.change(actions.use, controls.reference, None, **_PRIVATE)


def _connect_solve(actions: Runs) -> None:
    """The buttons that start and stop, and the endpoint for programs."""
    controls, display = actions.controls, actions.display
    inputs = [controls.photo, controls.reference, controls.editor, *controls.named.values()]
    started = display.restore.click(actions.wait, None, display.components, queue=False, **_PRIVATE)
    running = started.then(actions.solve, inputs, display.components, **_SOLVES, **_PRIVATE)
    display.stop.click(actions.stop, None, display.components, cancels=[running], queue=False, **_PRIVATE)
    photo, mask = gr.File(visible=False, label="photo"), gr.File(visible=False, label="mask, white = keep")
    settings, reference = gr.JSON(visible=False, label="settings"), gr.File(visible=False, label="reference photo")
    answer = [gr.File(visible=False, label="restored"), gr.JSON(visible=False, label="settings and record")]
    given = [photo, settings, mask, reference]
    gr.Button(visible=False).click(actions.call, given, answer, api_name="restore", **_SOLVES)
