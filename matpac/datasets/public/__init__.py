"""Datasets that others publish.

Every file here is a public dataset, begins with a page about it, and has the name that `kind` gives
it in params.yaml. matpac/datasets/registry.py says what else it may hold.
"""
