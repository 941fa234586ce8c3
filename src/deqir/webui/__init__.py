"""The web page of ``deqir ui``: restore photos in a browser, watch the chain converge, download what comes out."""

from deqir.webui.server import check_gradio, serve
from deqir.webui.settings import Limits

__all__ = ["Limits", "check_gradio", "serve"]
