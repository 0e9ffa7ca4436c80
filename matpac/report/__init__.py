"""scores -> page.

columns.py        probed datasets -> their columns
curves.py         training curves
experiments.py    a record of every run: data/experiments
footnotes.py      what is missing and what brings it, seeds, revisions
markup.py         values -> HTML
page.py           the page
paper_section.py  the same on the page and as files, and Figure 2
pictures.py       spectrograms with masks, maps of embeddings
provenance.py     what the numbers were made from
runs.py           experiments -> rows of the paper's tables, by name
scores.py         tables of scores, classes, confusions
seeds.py          scores and differences over seeds of pre-training
svg.py            drawings -> SVG
tables.py         the paper's tables, ours beside the printed numbers (printed.yaml)
"""
