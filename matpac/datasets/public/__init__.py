"""datasets that others publish, a module each.

audioset.py       AudioSet
dataset_page.py   what is known of a public dataset beforehand
esc10.py          ESC-10
esc50.py          ESC-50
fsd50k.py         FSD50K
fsdd.py           Free Spoken Digit Dataset
gtzan.py          GTZAN, fault-filtered (gtzan_filtered.csv)
magnatagatune.py  MagnaTagATune
nsynth.py         NSynth
obtain.py         a page's archives -> a folder of recordings
openmic.py        OpenMIC-2018
urbansound8k.py   UrbanSound8K
"""
