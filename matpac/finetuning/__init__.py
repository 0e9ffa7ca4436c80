"""shards, encoder -> classifier: encoder and head trained together.

augment.py   batch -> mixed and masked batch
balance.py   labels -> weights of classes, and of clips when they are drawn
batches.py   shards -> batches of crops
fit.py       encoder, fold -> logits of one fit, which resumes if it was killed
groups.py    networks -> optimizer with layer-wise learning rates
scores.py    classifiers -> their scores, and a table
stage.py     all folds and repeats -> scores and a classifier
"""
