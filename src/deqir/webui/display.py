"""The part of the page that shows what comes out."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from deqir.webui import looks


@dataclass(frozen=True, eq=False)
class Display:
    """The components that show what comes out, and the two buttons."""

    restore: gr.Button
    stop: gr.Button
    status: gr.HTML
    picture: gr.Image
    caption: gr.HTML
    slider: gr.HTML
    result: gr.DownloadButton
    settings: gr.DownloadButton
    mask: gr.DownloadButton
    report: gr.DownloadButton
    chart: gr.HTML

    @property
    def components(self) -> list[Any]:
        """All of them."""
        return [getattr(self, item.name) for item in fields(self)]

    @property
    def downloads(self) -> tuple[gr.DownloadButton, ...]:
        """The buttons that give the result, its settings, the mask that was drawn and the report."""
        return self.result, self.settings, self.mask, self.report


def build_display(welcome: str) -> Display:
    """Lay the display out in the column that is open."""
    with gr.Row():
        restore = gr.Button("Restore", variant="primary", elem_id="restore")
        stop = gr.Button("Stop", interactive=False, elem_id="stop")
    status = gr.HTML(looks.said(welcome), elem_id="status")
    picture = gr.Image(
        label="What will be restored",
        interactive=False,
        buttons=["fullscreen"],
        alt_text="the observation, or the image as it forms",
        elem_id="picture",
        height=440,
    )
    caption = gr.HTML(visible=False, elem_id="caption")
    slider = gr.HTML(visible=False, elem_id="slider")
    with gr.Row():
        result = gr.DownloadButton("Restored photo (PNG)", visible=False, size="md", elem_id="download-result")
        settings = gr.DownloadButton("Settings (JSON)", visible=False, size="md", elem_id="download-settings")
        mask = gr.DownloadButton("Mask (PNG)", visible=False, size="md", elem_id="download-mask")
        report = gr.DownloadButton("Report (HTML)", visible=False, size="md", elem_id="download-report")
    chart = gr.HTML(elem_id="chart")
    return Display(restore, stop, status, picture, caption, slider, result, settings, mask, report, chart)
