"""embeddings -> scores.

attentive.py  embeddings over time -> test logits of probes that learn when to listen
embed.py      shards -> embeddings
external.py   recordings -> embeddings of another encoder with the HEAR API
fit.py       embeddings -> a classifier, trained on all clips once its held-out score is known
folds.py      clips that train, stop and test a probe
heard.py      test clips that the encoder was pre-trained on, in numbers and words
held_out.py   fits on held-out clips -> scores that a classifier brings
knn.py        embeddings -> votes of the nearest training clips
labelled.py   shards -> clips with their labels, splits and folds
linear.py     embeddings -> test logits of linear probes, all repeats and folds at once
probe.py      embeddings -> score files
problems.py   first weights, losses and early stopping, for linear and attentive probes
scores.py     test logits -> scores, intervals, tables
steps.py      embeddings over time <-> ragged arrays in the store
store.py      embeddings <-> Zarr store
"""
