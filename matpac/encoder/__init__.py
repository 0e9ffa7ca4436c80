"""waveform -> embeddings.

batches.py   log-mels -> batches -> outputs by clip, computed ahead
encoder.py   waveform -> embeddings, with a trained encoder
files.py     audio files -> a table of embeddings, resumable
front_end.py waveforms -> log-mels on any device, with gradients
hub.py       a trained encoder <-> a folder or a Hugging Face repository
inputs.py    arrays as callers have them -> mono clips and their sample rates
module.py    waveforms -> latents over time: the encoder as a torch module
onnx.py      encoder -> ONNX file, front end included
over_time.py the embeddings of one clip over time
published.py a model <-> a folder or a Hugging Face repository, for encoders and classifiers
reading.py   audio files -> their log-mels in order, read ahead within a bound of memory
rows.py      audio files -> rows of numbers for each, resumable
shifts.py    log-mels from later frames on, for steps that are closer in time
tables.py    embeddings of files -> .npz, .parquet or .zarr
zarr.py      arrays with named axes <-> a Zarr group
"""
