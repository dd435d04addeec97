"""`pixr bench report`: what LOG.md has measured, as a table of headline figures and as plots, in `benchmarks/README.md`.

From the ground up: `rows` (LOG.md as values), `headline` and `headlines` (which figures, and their bars), `table`
(their newest rows), `axes` and `chart` (SVG), `plots` (which rows are drawn how), `page` (all of it, between two
marks).
"""
