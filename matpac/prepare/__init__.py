"""clips -> shards.

build.py         one job -> one shard
header_check.py  a header -> what will become of a recording
inspect.py       what preparing a dataset would do, before it is done
inspect_text.py  the same, for a terminal
plan.py          inventory -> a plan for every shard
publish.py       shards -> finished folder: index, statistics, rejections
repeats.py       equal ids and equal contents among millions
survey.py        clips one by one -> counts, balance, leaks
workers.py       processes that build shards
workspace.py     shards on their way, shared by processes and machines
"""
