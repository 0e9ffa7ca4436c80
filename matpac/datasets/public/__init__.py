"""Datasets that others publish. Every file here is one, and its name is the `kind` in params.yaml.

audioset.py       AudioSet
esc10.py          ESC-10
esc50.py          ESC-50
fsd50k.py         FSD50K
fsdd.py           Free Spoken Digit Dataset
gtzan.py          GTZAN, fault-filtered (gtzan_filtered.csv)
magnatagatune.py  MagnaTagATune
nsynth.py         NSynth
openmic.py        OpenMIC-2018
urbansound8k.py   UrbanSound8K
"""
