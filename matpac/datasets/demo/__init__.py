"""recordings synthesised from a seed.

recipes.py  synthesised recordings and three tasks on them
sounds.py   the sounds of the demo
"""
