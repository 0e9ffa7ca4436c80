"""files -> clips.

containers.py    tar or parquet file -> the recordings in it
dataset_page.py  what is known of a public dataset before it is downloaded
fingerprints.py  has anything changed that is read in place?
inventory.py     folder -> its recordings with checksums
obtain.py        page -> folder of recordings
preview.py       what is here, and what a download would need
registry.py      kind -> how such a dataset is fetched, listed, read and judged
"""
