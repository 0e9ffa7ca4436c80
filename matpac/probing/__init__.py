"""embeddings -> scores.

attentive.py  a second reading: probes that learn when to listen
embed.py      shards -> embeddings
external.py   recordings -> embeddings of another encoder, any with the HEAR API
folds.py      which clips train, stop and test a probe
knn.py        a second reading: votes of the nearest training clips
linear.py     all repeats and folds of a linear probe at once
probe.py      embeddings -> score files
problems.py   what linear and attentive probes share: first weights, losses, stopping
scores.py     scores, intervals, tables
steps.py      embeddings over time, as ragged arrays in the Zarr store
store.py      the store of embeddings
"""
