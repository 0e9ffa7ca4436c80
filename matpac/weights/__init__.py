"""networks <-> disk.

checkpoint.py  a folder that explains itself
describe.py    the same in words
info.py        checkpoint, saved encoder or released file -> what is known of it
model_card.py  what is known of an encoder -> a model card
names.py       a name or a path -> trained weights; the authors' files, downloaded once
pretrained.py  a trained encoder by itself, as config.json and model.safetensors
released.py    the authors' weight files -> tensors in our names
"""
