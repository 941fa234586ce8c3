"""What the buttons of the page and its endpoint do: restore, show how it goes, and stop."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from deqir.errors import DeqirError
from deqir.initialization import Iteration
from deqir.report.recorder import thumbnails
from deqir.webui import looks
from deqir.webui.actions import CAPTION, EARLIER, FORMING, Actions, Updates, session_of
from deqir.webui.photos import painted_mask, pixels, read_mask_file
from deqir.webui.sessions import Visit
from deqir.webui.settings import Settings
from deqir.webui.solve import StoppedError
from deqir.webui.workbench import Moment, Outcome

SHOWN_SIDE = 512


class Runs(Actions):
    """The handlers of the buttons, beside those of the controls."""

    def wait(self, request: gr.Request) -> Updates:
        """Restore was pressed: say what happens before the restoration's turn comes; Stop works from now on."""
        session = session_of(request)
        self.workbench.sessions.enter(session).running = True
        waits = self.workbench.sessions.other_is_running(session)
        text = "Waiting for the restoration of another visitor; Stop leaves the queue." if waits else "Starting."
        return {**self._buttons(running=True), self.display.status: looks.said(text)}

    def solve(
        self, request: gr.Request, photo: str | None, reference: str | None, editor: Any, *values: Any
    ) -> Iterator[Updates]:
        """Restore the photo and show how it goes."""
        session, shown = session_of(request), self.display
        visit = self.workbench.sessions.use(session, photo, reference)
        visit.running, visit.asked, visit.latest = True, (photo, values), (photo, values)
        yield {
            **self._buttons(running=True),
            **{part: gr.update(visible=False) for part in (shown.caption, shown.slider, *shown.downloads)},
            shown.status: looks.said("Starting."),
            shown.picture: gr.update(visible=True, label=FORMING),
            shown.chart: "",
        }
        try:
            settings = self.workbench.settings(self.controls.asked(values))
            size = self.workbench.photo(photo, settings).shape[1:]
            mask = painted_mask(editor, (size[0], size[1])) if settings.has_brush else None
            for event in self.workbench.restore(photo, settings, mask, session, reference):
                if isinstance(event, Moment):
                    yield self._moment(event, settings, session)
                else:
                    yield self._outcome(event, visit)
        except StoppedError:
            yield self._ended("Stopped.", session, visit)
        except DeqirError as error:
            yield self._ended(str(error), session, visit)
        except Exception as error:
            print(traceback.format_exc() if os.environ.get("DEQIR_DEBUG") else repr(error), file=sys.stderr)
            text = f"{type(error).__name__}: the restoration failed; please report this."
            yield self._ended(text, session, visit)

    def stop(self, request: gr.Request) -> Updates:
        """Stop the restoration, which ends with its current sweep, or leave the queue."""
        session = session_of(request)
        self.workbench.sessions.stop(session)
        return self._ended("Stopped.", session, self.workbench.sessions.enter(session))

    def call(
        self, photo: str, settings: dict[str, Any], mask: str | None, reference: str | None, request: gr.Request
    ) -> tuple[str, dict[str, Any]]:
        """Restore ``photo`` for a program: the path of the result, and the settings with the record."""
        session = session_of(request)
        visit = self.workbench.sessions.use(session, photo, mask, reference)
        visit.running = True
        try:
            checked = self.workbench.settings(settings or {})
            size = self.workbench.photo(photo, checked).shape[1:]
            painted = read_mask_file(mask, (size[0], size[1]), self.workbench.limits) if mask else None
            *_, outcome = self.workbench.restore(photo, checked, painted, session, reference)
        except (DeqirError, StoppedError) as error:
            raise gr.Error(escape(str(error), quote=False) or "stopped", print_exception=False) from None
        finally:
            visit.running = False
        assert isinstance(outcome, Outcome)
        return str(outcome.result), {"settings": checked.to_json(), "result": outcome.run.settings}

    def _moment(self, moment: Moment, settings: Settings, session: str) -> Updates:
        image = pixels(thumbnails(moment.progress.image, SHOWN_SIDE)[0] / 255)
        picture = {self.display.picture: self.workbench.sessions.picture(session, "moment", image)}
        if isinstance(moment.progress, Iteration):
            return {**picture, self.display.status: looks.optimising(moment.progress, settings.iterations)}
        return {
            **picture,
            self.display.status: looks.under_way(moment.progress, moment.trail),
            self.display.chart: looks.chart(moment.recorder, moment.trail, settings.tolerance),
        }

    def _outcome(self, outcome: Outcome, visit: Visit) -> Updates:
        shown = self.display
        visit.running, visit.outcome = False, outcome
        paths = (outcome.result, outcome.settings, outcome.mask, outcome.report)
        files = [(button, path) for button, path in zip(shown.downloads, paths, strict=True) if path is not None]
        size = outcome.run.pictures["result"].shape[1:]
        note = "" if visit.is_current else "The settings have been changed since."
        return {
            **self._buttons(running=False),
            **{button: gr.update(value=str(path), visible=True) for button, path in files},
            shown.status: looks.finished(outcome.run, note),
            shown.picture: gr.update(visible=False),
            shown.caption: gr.update(value=looks.caption(EARLIER if note else CAPTION), visible=True),
            shown.slider: gr.update(
                value=looks.comparison(_address(outcome.before), _address(outcome.after), (size[0], size[1])),
                visible=True,
            ),
        }

    def _ended(self, text: str, session: str, visit: Visit) -> Updates:
        """The page after a restoration without a result: what would be restored, and no noise."""
        visit.running = False
        return {
            **self._buttons(running=False),
            **self.previewed(session, visit, said=text),
            self.display.chart: "",
        }

    def _buttons(self, running: bool) -> Updates:
        return {
            self.display.restore: gr.update(interactive=not running),
            self.display.stop: gr.update(interactive=running),
        }


def _address(file: Path) -> str:
    """Where the page finds ``file``, relative to its own address."""
    return f"gradio_api/file={quote(str(file))}"
