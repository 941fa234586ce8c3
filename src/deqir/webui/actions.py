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

from deqir.errors import DeqirError
from deqir.initialization import Iteration
from deqir.old_photo import TRAVEL
from deqir.problems import APPRAISED
from deqir.report.recorder import thumbnails
from deqir.webui import looks
from deqir.webui.controls import DENOISING, ESTIMATE, Controls
from deqir.webui.display import Display
from deqir.webui.photos import covered, painted_mask, pixels, read_mask_file
from deqir.webui.settings import BRUSH, Settings
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

    def choose_task(self, task: str, noise: float) -> Updates:
        """Show the controls of ``task`` and what suits it: denoising needs some noise, old photos travel in time."""
        named, groups = self.controls.named, self.controls.groups
        travel = TRAVEL if task == "old-photo" else dict.fromkeys(TRAVEL, 1)
        level = {named["noise"]: gr.update(value=DENOISING)} if task == "denoise" and not noise else {}
        return {
            **{group: gr.update(visible=name == task) for name, group in groups.items()},
            **{named[name]: gr.update(value=value) for name, value in travel.items()},
            named[ESTIMATE]: gr.update(value=task in APPRAISED),
            **level,
        }

    def choose_mask(self, task: str, inpainted: str, damaged: str) -> Updates:
        """Show the editor where the mask is painted, and the share of a random one."""
        chosen = {"inpaint": inpainted, "old-photo": damaged}.get(task)
        return {
            self.controls.editor: gr.update(visible=chosen == BRUSH),
            self.controls.named["inpaint.hidden"]: gr.update(visible=inpainted == "random"),
        }

    def find_damage(self, photo: str | None, *values: Any) -> Updates:
        """Paint the damage that is found into the editor, where it can be changed."""
        try:
            settings = self.workbench.settings(self.controls.asked(values))
            image, mask = self.workbench.damage(photo, settings)
        except DeqirError as error:
            return {self.display.status: looks.said(str(error))}
        gr.Info(f"{float((mask == 0).double().mean()):.1%} of the photo looks damaged; edit it with brush and eraser.")
        return {
            self.controls.editor: gr.update(value=covered(image, mask), visible=True),
            self.controls.named["old-photo.mask"]: gr.update(value=BRUSH),
        }

    def preview(self, photo: str | None, *values: Any) -> Updates:
        """Show what will be restored."""
        shown = self.display
        hidden = {name: gr.update(visible=False) for name in (shown.slider, *shown.downloads)}
        hidden |= {shown.chart: "", shown.picture: gr.update(value=None, visible=True, label="What will be restored")}
        if photo is None:
            return {**hidden, shown.status: looks.said(WELCOME)}
        try:
            settings = self.workbench.settings(self.controls.asked(values))
            preview = self.workbench.preview(photo, settings)
        except DeqirError as error:
            return {**hidden, shown.status: looks.said(str(error))}
        ready = f"Ready: the result will have {preview.size[1]} x {preview.size[0]} pixels."
        return {
            **hidden,
            shown.status: looks.said(f"{ready} {preview.found}".strip()),
            shown.picture: gr.update(value=pixels(preview.image), visible=True, label="What will be restored"),
        }

    def fill_editor(self, photo: str | None, *values: Any) -> Any:
        """Put the photo under the brush."""
        try:
            settings = self.workbench.settings(self.controls.asked(values))
            if photo is None or not settings.has_brush:
                return None
            return pixels(self.workbench.photo(photo, settings))
        except DeqirError:
            return None  # the preview tells

    def solve(
        self, request: gr.Request, photo: str | None, reference: str | None, editor: Any, *values: Any
    ) -> Iterator[Updates]:
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
            for event in self.workbench.restore(photo, settings, mask, _session(request), reference):
                yield self._moment(event, settings) if isinstance(event, Moment) else self._outcome(event)
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
        self, photo: str, settings: dict[str, Any], mask: str | None, reference: str | None, request: gr.Request
    ) -> tuple[str, dict[str, Any]]:
        """Restore ``photo`` for a program: the path of the result, and the settings with the record."""
        try:
            checked = self.workbench.settings(settings or {})
            size = self.workbench.photo(photo, checked).shape[1:]
            painted = read_mask_file(mask, (size[0], size[1]), self.workbench.limits) if mask else None
            *_, outcome = self.workbench.restore(photo, checked, painted, _session(request), reference)
        except (DeqirError, StoppedError) as error:
            raise gr.Error(escape(str(error), quote=False) or "stopped", print_exception=False) from None
        assert isinstance(outcome, Outcome)
        return str(outcome.result), {"settings": checked.to_json(), "result": outcome.run.settings}

    def _moment(self, moment: Moment, settings: Settings) -> Updates:
        image = thumbnails(moment.progress.image, SHOWN_SIDE)[0]
        picture = {self.display.picture: image.permute(1, 2, 0).expand(-1, -1, 3).numpy()}
        if isinstance(moment.progress, Iteration):
            return {**picture, self.display.status: looks.optimising(moment.progress, settings.iterations)}
        return {
            **picture,
            self.display.status: looks.under_way(moment.progress),
            self.display.chart: looks.chart(moment.recorder, settings.tolerance),
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
