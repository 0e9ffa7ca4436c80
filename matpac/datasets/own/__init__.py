"""Recordings of the user, read in place.

doubts.py       classes -> questions: splits? several labels?
folder.py       any tree of audio files
label_table.py  CSV or parquet table of labels -> annotations
labels.py       labels, splits and the task, for all three kinds
parquet.py      parquet files with a column of audio
places.py       names of folders and containers -> splits
split.py        labelled clips -> folds or splits
tar.py          tar shards
"""
