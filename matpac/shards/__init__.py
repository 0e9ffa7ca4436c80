"""shards -> batches.

compare.py     two lists of recordings -> what they share
corpus.py      the datasets that pre-training reads, with fingerprints
crops.py       shards -> batches of random crops
folder.py      a shard folder, open for reading
frames.py      many files read at random places
index.py       rows about clips <-> index.parquet
leaks.py       groups and recordings in several splits or folds
statistics.py  log-mels -> their exact mean and standard deviation
tar.py         log-mels <-> WebDataset tars
zarr.py        log-mels <-> a Zarr array
"""
