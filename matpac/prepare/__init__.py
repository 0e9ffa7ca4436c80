"""clips -> shards.

build.py         one job -> one shard
header_check.py  recording -> its header, or the rejection that the header shows in advance
inspect.py       what preparing a dataset would do: its plan, and a look at every header
inspect_text.py  the same for a terminal, or as JSON
plan.py          inventory -> a plan for every shard
proposal.py      survey of a folder -> a params.yaml for it
publish.py       shards -> finished folder: index, statistics, rejections
survey.py        folder of somebody's recordings -> what it holds
workers.py       processes that build shards
workspace.py     shards on their way, shared by processes and machines
"""
