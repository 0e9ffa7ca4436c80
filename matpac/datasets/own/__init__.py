"""recordings of your own.

folder.py       your own recordings: any tree of files
label_table.py  labels from a CSV or parquet table
labels.py       labels that come with own recordings
parquet.py      your own recordings: parquet files
split.py        labelled clips -> folds or splits
tar.py          your own recordings: tar shards
"""
