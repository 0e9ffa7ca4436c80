"""How the data stages run under Prefect. What they do is in matpac/.

artifacts.py       progress, tables and pictures in the Prefect UI
choices.py         how a flow's parameters look in Prefect's pages
download.py        params.yaml -> recordings and their inventory
dvc.py             DVC as a child that ends before its parent, with its stages
grid.py            an ablation: an experiment for each value of presets/grids/<name>.yaml
lent.py            params.yaml with an experiment's values, put back whatever happens
reproduce.py       the whole pipeline as a flow
runners.py         threads, processes or Dask, a few tasks at a time
serve.py           deployments: schedules, parameters and limits in the Prefect UI
server.py          one Prefect server for all stages, while any needs it
shards.py          recordings -> shards, a task per shard
stage.py           what both stages share: arguments, logging, errors
summary.py         what a shard folder shows there
"""

import os

# Here, because Prefect sends its first message when it is imported. Whoever wants to send them sets it to 0.
os.environ.setdefault("DO_NOT_TRACK", "1")
