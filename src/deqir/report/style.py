"""The style sheet of a report, light and dark."""

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1f2430; --soft: #596070; --line: #d9dce3;
  --good: #14683a; --good-bg: #dff3e6; --warn: #8a3a06; --warn-bg: #fdeadb; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #1a1d24; --ink: #e6e8ee; --soft: #a9b0c0; --line: #3a404d;
    --good: #8fe0ae; --good-bg: #173524; --warn: #fdba74; --warn-bg: #3d2412; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
.lead { margin: .2rem 0 1.2rem; color: var(--soft); }
.status { padding: .1rem .55rem; border-radius: 1rem; font-size: .875rem; }
.good { color: var(--good); background: var(--good-bg); }
.warn { color: var(--warn); background: var(--warn-bg); }
.tables { display: flex; flex-wrap: wrap; gap: 1rem 3rem; align-items: flex-start; }
table { border-collapse: collapse; font-size: .925rem; }
caption { text-align: left; font-weight: 600; padding-bottom: .25rem; }
th, td { text-align: left; font-weight: 400; padding: .2rem 1.2rem .2rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: break-word; font-variant-numeric: tabular-nums; }
.note { color: var(--soft); font-size: .875rem; margin: .5rem 0 0; max-width: 46rem; }
th[scope=row] { color: var(--soft); }
.tables td, th[scope=col], .settings th { white-space: nowrap; }
.settings td { overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
.wide img { min-width: 48rem; }
.grid { display: grid; gap: 1.2rem; grid-template-columns: repeat(auto-fit, minmax(min(45%, 15rem), 1fr)); }
figure { margin: 0; }
figure img { display: block; max-width: 100%; height: auto; border-radius: 4px; }
.grid img { width: 100%; }
img.pixels { image-rendering: pixelated; }
figcaption { color: var(--soft); font-size: .875rem; margin-top: .4rem; max-width: 46rem; }
@media (max-width: 40rem) { .tables { gap: 1rem; } th, td { padding-right: .7rem; } }
@media print { .wide img { min-width: 0; } main { max-width: none; } section { break-inside: avoid; } }
"""
