"""waveform -> probabilities of classes.

calibration.py  validation logits -> temperature and thresholds; probabilities -> calibration error
card.py         a description -> a model card
classifier.py   waveform -> logits, probabilities and events, with an encoder and a head
distances.py    embeddings -> distances to the nearest training clips
events.py       probabilities over time -> events
files.py        audio files -> a table of probabilities or events, or label files
heads.py        embeddings over time -> logits
onnx.py         classifier -> ONNX file, front end and encoder included
saved.py        a classifier <-> a folder
tables.py       what a classifier says of files -> .csv, .parquet or label files
"""
