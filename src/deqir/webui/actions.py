"""What the page does: the handlers of its events."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
from torch import Tensor

from deqir.errors import DeqirError
from deqir.report.recorder import thumbnails
from deqir.webui import looks
from deqir.webui.controls import DENOISING, Controls
from deqir.webui.display import Display
from deqir.webui.photos import painted_mask, read_mask_file
from deqir.webui.solve import StoppedError
from deqir.webui.workbench import Moment, Outcome, Workbench

WELCOME = "Upload a photo, or take the bundled one."
SHOWN_SIDE = 512
Updates = dict[Any, Any]


@dataclass(frozen=True, eq=False)
class Actions:
    """The handlers, with what they act on."""

    workbench: Workbench
    controls: Controls
    display: Display

    def enter(self, request: gr.Request) -> None:
        """The page was opened."""
        self.workbench.sessions.enter(_session(request))

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self.workbench.sessions.leave(_session(request))

    def choose_task(self, task: str, noise: float) -> list[Any]:
        """Show the controls of ``task``; denoising needs some noise."""
        shown = [gr.update(visible=name == task) for name in self.controls.groups]
        return [*shown, gr.update(value=DENOISING) if task == "denoise" and not noise else gr.update()]

    def preview(self, photo: str | None, *values: Any) -> Updates:
        """Show what will be restored."""
        shown = self.display
        hidden = {name: gr.update(visible=False) for name in (shown.slider, *shown.downloads)}
        hidden |= {shown.chart: "", shown.picture: gr.update(value=None, visible=True, label="What will be restored")}
        if photo is None:
            return {**hidden, shown.status: looks.said(WELCOME)}
        try:
            settings = self.workbench.settings(self.controls.asked(values))
            image, (height, width) = self.workbench.preview(photo, settings)
        except DeqirError as error:
            return {**hidden, shown.status: looks.said(str(error))}
        return {
            **hidden,
            shown.status: looks.said(f"Ready: the result will have {width} x {height} pixels."),
            shown.picture: gr.update(value=_pixels(image), visible=True, label="What will be restored"),
        }

    def fill_editor(self, photo: str | None, *values: Any) -> Any:
        """Put the photo under the brush."""
        try:
            settings = self.workbench.settings(self.controls.asked(values))
            if photo is None or not settings.has_brush:
                return None
            return _pixels(self.workbench.photo(photo, settings))
        except DeqirError:
            return None  # the preview tells

    def solve(self, request: gr.Request, photo: str | None, editor: Any, *values: Any) -> Iterator[Updates]:
        """Restore the photo and show how it goes."""
        shown = self.display
        yield {
            **self._buttons(running=True),
            **{component: gr.update(visible=False) for component in (shown.slider, *shown.downloads)},
            shown.status: looks.said("Starting."),
            shown.picture: gr.update(visible=True, label="The image as it forms"),
            shown.chart: "",
        }
        try:
            settings = self.workbench.settings(self.controls.asked(values))
            size = self.workbench.photo(photo, settings).shape[1:]
            mask = painted_mask(editor, (size[0], size[1])) if settings.has_brush else None
            for event in self.workbench.restore(photo, settings, mask, _session(request)):
                yield self._moment(event, settings.tolerance) if isinstance(event, Moment) else self._outcome(event)
        except StoppedError:
            yield self._ended("Stopped.")
        except DeqirError as error:
            yield self._ended(str(error))
            gr.Warning(escape(str(error), quote=False))
        except Exception as error:
            print(traceback.format_exc() if os.environ.get("DEQIR_DEBUG") else repr(error), file=sys.stderr)
            yield self._ended(f"{type(error).__name__}: the restoration failed; please report this.")

    def stop(self, request: gr.Request) -> Updates:
        """Stop the restoration, which ends with its current sweep."""
        self.workbench.sessions.stop(_session(request))
        return self._ended("Stopped.")

    def call(
        self, photo: str, settings: dict[str, Any], mask: str | None, request: gr.Request
    ) -> tuple[str, dict[str, Any]]:
        """Restore ``photo`` for a program: the path of the result, and the settings with the record."""
        try:
            checked = self.workbench.settings(settings or {})
            size = self.workbench.photo(photo, checked).shape[1:]
            painted = read_mask_file(mask, (size[0], size[1]), self.workbench.limits) if mask else None
            *_, outcome = self.workbench.restore(photo, checked, painted, _session(request))
        except (DeqirError, StoppedError) as error:
            raise gr.Error(escape(str(error), quote=False) or "stopped", print_exception=False) from None
        assert isinstance(outcome, Outcome)
        return str(outcome.result), {"settings": checked.to_json(), "result": outcome.run.settings}

    def _moment(self, moment: Moment, tolerance: float) -> Updates:
        image = thumbnails(moment.progress.image, SHOWN_SIDE)[0]
        return {
            self.display.status: looks.under_way(moment.progress),
            self.display.picture: image.permute(1, 2, 0).expand(-1, -1, 3).numpy(),
            self.display.chart: looks.chart(moment.recorder, tolerance),
        }

    def _outcome(self, outcome: Outcome) -> Updates:
        shown = self.display
        files = zip(shown.downloads, (outcome.result, outcome.settings, outcome.report), strict=True)
        return {
            **self._buttons(running=False),
            **{button: gr.update(value=str(file), visible=True) for button, file in files},
            shown.status: looks.finished(outcome.run),
            shown.picture: gr.update(visible=False),
            shown.slider: gr.update(value=(str(outcome.before), str(outcome.after)), visible=True),
        }

    def _ended(self, text: str) -> Updates:
        """The page after a restoration without a result."""
        return {**self._buttons(running=False), self.display.status: looks.said(text)}

    def _buttons(self, running: bool) -> Updates:
        return {
            self.display.restore: gr.update(interactive=not running),
            self.display.stop: gr.update(interactive=running),
        }


def _session(request: gr.Request) -> str:
    return str(request.session_hash)


def _pixels(image: Tensor) -> Any:
    """(C, H, W) in [0, 1] as (H, W, 3) uint8."""
    return (image * 255).round().byte().permute(1, 2, 0).expand(-1, -1, 3).numpy()
