"""files -> clips.

containers.py    recordings in tars and parquet files
contents.py      weights and modules -> checksums of what lies there
fingerprints.py  have recordings and weights that are read in place changed?
inventory.py     inventory of a dataset's recordings
overview.py      the tables of `matpac datasets`
preview.py       what a dataset that is not here would need
registry.py      all kinds of datasets, and where their recordings lie
"""
