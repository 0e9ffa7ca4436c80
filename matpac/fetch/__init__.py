"""urls -> files.

archive.py        archives -> files, safely
http.py           urls -> verified files
split_archive.py  an archive in several files, read as one
"""
