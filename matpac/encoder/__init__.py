"""waveform -> embeddings.

encoder.py  waveform -> embeddings
files.py    audio files -> a table of embeddings, resumable
hub.py      a trained encoder <-> a folder or a Hugging Face repository
onnx.py     encoder -> ONNX file, front end included
tables.py   that table as .npz, .parquet or .zarr
"""
