"""The style sheet of the page."""

STYLE = """
.gradio-container { width: 100%; max-width: 84rem !important; margin: 0 auto !important; }
.prose h1 { margin-bottom: .1rem; }
#status p { margin: 0 0 .3rem; }
#status .warning { color: #8a3a06; }
.dark #status .warning { color: #fdba74; }
#status progress { appearance: none; width: 100%; height: .6rem; border: 0; border-radius: .3rem; overflow: hidden;
  background: #cbd5e1; }
#status progress::-webkit-progress-bar { background: #cbd5e1; }
#status progress::-webkit-progress-value { background: #0f766e; }
#status progress::-moz-progress-bar { background: #0f766e; }
#picture img { width: 100%; height: 100%; object-fit: contain; image-rendering: pixelated; }
#caption p { margin: 0; font-weight: 600; }
#chart { overflow-x: auto; }
#chart img { width: 100%; min-width: 40rem; height: auto; border-radius: 6px; }
#kernel img { width: 96px; height: 96px; image-rendering: pixelated; border-radius: 4px; }
#kernel figure { margin: 0; display: flex; gap: .8rem; align-items: center; }
.compare { position: relative; }
.compare .stack { position: relative; width: min(100%, calc(35rem * var(--w) / var(--h)));
  aspect-ratio: var(--w) / var(--h); margin: 0 auto; overflow: hidden; border-radius: 6px; }
.compare img { position: absolute; inset: 0; width: 100%; height: 100%; max-width: none; margin: 0; }
.compare .before { clip-path: inset(0 calc(100% - var(--at)) 0 0); }
.compare span { position: absolute; inset: 0 auto 0 var(--at); width: 2px; margin-left: -1px; background: #fff;
  box-shadow: 0 0 3px #000; pointer-events: none; }
.compare span::after { content: "\u25c2\u25b8"; position: absolute; top: 50%; left: 50%; padding: .1rem .4rem;
  transform: translate(-50%, -50%); border-radius: 1rem; background: #0f766e; color: #fff; }
.compare input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize; }
.compare .full { display: block; margin: .4rem auto 0; padding: .1rem .6rem; border-radius: 4px; font-size: .875rem;
  background: #e2e8f0; color: #1f2937; }
.compare:fullscreen { display: grid; align-content: center; background: #000; }
.compare:fullscreen .stack { width: min(100vw, calc(100vh * var(--w) / var(--h))); }
.compare .stack:has(input:focus-visible), .compare .full:focus-visible, fieldset label:has(input:focus-visible),
input[type=range]:focus-visible, button:focus-visible { outline: 3px solid #0d9488 !important; outline-offset: 2px; }
div:has(> .wrap [role=combobox]):not(:focus-within) ul[role=listbox] { display: none; }
.toast-wrap { top: auto !important; bottom: 1rem; }
footer { display: none !important; }
"""
