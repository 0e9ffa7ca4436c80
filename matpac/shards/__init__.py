"""shards -> batches.

corpus.py      what pre-training reads, and a fingerprint of it
crops.py       shards -> batches of random crops
folder.py      a shard folder, open for reading
frames.py      many files read at random places
index.py       index.parquet
leaks.py       a group or a recording in several splits or folds is an error, unless official
statistics.py  exact mean and deviation
tar.py         the WebDataset format
zarr.py        the Zarr format
"""
