"""Recordings synthesised from a seed.

recipes.py  three tasks, and a corpus without labels
sounds.py   the instruments and noises that they play
"""
