"""What the controls of the page do: show other controls, take uploads in, and preview what will be restored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from deqir.errors import DeqirError
from deqir.old_photo import TRAVEL
from deqir.problems import APPRAISED
from deqir.webui import looks
from deqir.webui.controls import DENOISING, ESTIMATE, OBSERVED_NAMES, TASK_NAMES, Controls
from deqir.webui.display import Display
from deqir.webui.photos import covered, pixels, read_mask_file
from deqir.webui.sessions import Visit
from deqir.webui.settings import BRUSH
from deqir.webui.workbench import Workbench

WELCOME = "Upload a photo, or take the bundled one."
PREVIEW, FORMING = "What will be restored", "The image as it forms"
CAPTION, EARLIER = "Before and after", "Before and after, of the earlier settings"
Updates = dict[Any, Any]


@dataclass(frozen=True, eq=False)
class Actions:
    """The handlers of the controls, with what they act on."""

    workbench: Workbench
    controls: Controls
    display: Display

    def enter(self, request: gr.Request) -> None:
        """The page was opened."""
        self.workbench.sessions.enter(session_of(request))

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self.workbench.sessions.leave(session_of(request))

    def use(self, path: str | None, request: gr.Request) -> None:
        """A file was uploaded that is not looked at yet."""
        self.workbench.sessions.use(session_of(request), path)

    def take_bundled(self, task: str) -> tuple[str, bool]:
        """The bundled photo, which is good, or for old photos a scan, which is damaged."""
        return str(self.workbench.bundled_photo(task)), task != "old-photo"

    def choose_kind(self, simulate: bool, task: str) -> Any:
        """Offer the tasks that suit a damaged photo, or a good one."""
        names = TASK_NAMES if simulate else OBSERVED_NAMES
        return gr.update(choices=list(names.items()), value=task if task in names.values() else "sr")

    def choose_task(self, task: str, noise: float, request: gr.Request) -> Updates:
        """Show the controls of ``task`` and what suits it: denoising needs some noise, old photos travel in time.

        The noise that denoising was given goes with it, unless it was changed.
        """
        named, groups = self.controls.named, self.controls.groups
        visit = self.workbench.sessions.enter(session_of(request))
        travel = TRAVEL if task == "old-photo" else dict.fromkeys(TRAVEL, 1)
        level = {}
        if task == "denoise" and not noise:
            visit.lent, level = True, {named["noise"]: gr.update(value=DENOISING)}
        elif task != "denoise":
            level = {named["noise"]: gr.update(value=0)} if visit.lent and noise == DENOISING else {}
            visit.lent = False
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
            self.controls.mask_file: gr.update(visible=chosen == BRUSH),
            self.controls.named["inpaint.hidden"]: gr.update(visible=inpainted == "random"),
        }

    def find_damage(self, request: gr.Request, photo: str | None, *values: Any) -> Updates:
        """Paint the damage that is found into the editor, where it can be changed."""
        try:
            settings = self.workbench.settings(self.controls.asked(values))
            image, mask = self.workbench.damage(photo, settings)
        except DeqirError as error:
            return {self.display.status: looks.said(str(error))}
        gr.Info(f"{float((mask == 0).double().mean()):.1%} of the photo looks damaged; edit it with brush and eraser.")
        return {
            self.controls.editor: gr.update(value=self._shown(request, covered(image, mask)), visible=True),
            self.controls.mask_file: gr.update(visible=True),
            self.controls.named["old-photo.mask"]: gr.update(value=BRUSH),
        }

    def take_mask(self, request: gr.Request, mask: str | None, photo: str | None, *values: Any) -> Updates:
        """Paint the mask of a file into the editor."""
        self.workbench.sessions.use(session_of(request), mask)
        try:
            return {self.controls.editor: self._under_brush(request, mask, photo, values)}
        except DeqirError as error:
            return {self.display.status: looks.said(str(error))}

    def fill_editor(self, request: gr.Request, mask: str | None, photo: str | None, *values: Any) -> Any:
        """Put the photo under the brush, and the mask of a file on it."""
        try:
            return self._under_brush(request, mask, photo, values)
        except DeqirError:
            return None  # the preview tells

    def _under_brush(self, request: gr.Request, mask: str | None, photo: str | None, values: tuple[Any, ...]) -> Any:
        """What the editor shows of the photo and of the mask of a file, where there are such."""
        settings = self.workbench.settings(self.controls.asked(values))
        if photo is None or not settings.has_brush:
            return None
        image = self.workbench.photo(photo, settings)
        if mask is None:
            return self.workbench.sessions.picture(session_of(request), "background", pixels(image))
        kept = read_mask_file(mask, (image.shape[1], image.shape[2]), self.workbench.limits)
        return self._shown(request, covered(image, kept))

    def preview(self, request: gr.Request, photo: str | None, *values: Any) -> Updates:
        """Show what will be restored; what was restored before stays, and is named as such."""
        visit, shown = self.workbench.sessions.use(session_of(request), photo), self.display
        visit.latest = (photo, values)
        if visit.running:
            return {shown.status: gr.skip()}
        if visit.outcome is None:
            return self.previewed(session_of(request), visit)
        if visit.is_current:
            return {
                shown.picture: gr.update(visible=False),
                shown.caption: looks.caption(CAPTION),
                shown.status: looks.finished(visit.outcome.run),
            }
        return {
            **self.previewed(session_of(request), visit, "The result below is of the earlier settings."),
            shown.caption: looks.caption(EARLIER),
        }

    def previewed(self, session: str, visit: Visit, note: str = "", said: str = "") -> Updates:
        """What the page holds now, before it is restored, with a ``note``; ``said`` takes the place of the status."""
        photo, values = visit.latest or (None, ())
        status, image = looks.said(said or f"{WELCOME} {note}".strip()), None
        if photo is not None:
            try:
                preview = self.workbench.preview(photo, self.workbench.settings(self.controls.asked(values)))
                status = looks.said(said) if said else looks.ready(preview, self.workbench.limits.side, note)
                image = self.workbench.sessions.picture(session, "preview", pixels(preview.image))
            except DeqirError as error:
                status = looks.said(said or str(error))
        return {
            self.display.status: status,
            self.display.picture: gr.update(value=image, visible=True, label=PREVIEW),
        }

    def _shown(self, request: gr.Request, editor: dict[str, Any]) -> dict[str, Any]:
        """The arrays of an ``editor``'s value as files for this visitor alone."""

        def file(kind: str, array: Any) -> str | None:
            return self.workbench.sessions.picture(session_of(request), kind, array)

        return {
            "background": file("background", editor["background"]),
            "layers": [file("layer", layer) for layer in editor["layers"]],
            "composite": file("composite", editor["composite"]),
        }


def session_of(request: gr.Request) -> str:
    """The visitor's session."""
    return str(request.session_hash)
