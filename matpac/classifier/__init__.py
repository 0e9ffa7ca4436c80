"""waveform -> probabilities of classes.

calibration.py  validation logits -> temperature and thresholds; probabilities -> calibration error
classifier.py   waveform -> logits, probabilities and events, with an encoder and a head
distances.py    embeddings -> distances to the nearest training clips
events.py       probabilities over time -> events
heads.py        embeddings over time -> logits
saved.py        a classifier <-> a folder
"""
