"""networks <-> disk.

checkpoint.py  a run's networks, optimizer and history <-> a folder that explains itself
describe.py    weights -> facts, words, JSON, a model card
open.py        checkpoint, saved encoder or released file -> trained weights
pretrained.py  a trained encoder by itself <-> config.json and model.safetensors
released.py    the authors' weight files: by name, downloaded once, as tensors in our names
tensors.py     tensors <-> a safetensors file
"""
