"""urls -> files.

archive.py        archive -> files, without trust in what it says
http.py           urls -> verified files
split_archive.py  parts of an archive -> one file to read
"""
