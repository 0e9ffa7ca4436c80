"""scores -> page.

columns.py        probed datasets -> columns of the paper's tables
curves.py         training curves
experiments.py    records of all runs, in data/experiments
finetuned.py      scores of encoders trained on with their heads, beside probes, and earlier runs
footnotes.py      notes below a table: missing cells and how to fill them, seeds, revisions
html.py           values -> HTML by the templates in templates/, drawings -> SVG
page.py           the page and the order of its sections
paper_section.py  the paper's tables on the page and as files
pictures.py       spectrograms with masks, maps of embeddings
provenance.py     the data, and what the numbers were made from
rows.py           experiments -> rows of the tables, scores and differences over seeds
scores.py         scores of all tasks, and each task class by class
tables.py         Tables I to III and Figure 2, beside the printed numbers (printed.yaml)
"""
