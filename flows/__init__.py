"""How the data stages run under Prefect. What they do is in matpac/.

download.py          params.yaml -> recordings and their inventory
dvc.py               DVC as a child that never outlives its parent
grid.py              an ablation: one experiment for each value of presets/grids/<name>.yaml
prefect_ui.py        choices, progress and tables in Prefect's pages
reproduce.py         the whole pipeline as a flow
runners.py           threads, processes or Dask, a few tasks at a time
serve.py             deployments: schedules, parameters and limits in Prefect's pages
server.py            one Prefect server for all stages, for as long as any needs it
shards.py            recordings -> shards, one task a shard
stage.py             what both data stages share: command line, logging, errors
summary.py           what a shard folder holds, for Prefect's pages
temporary_params.py  params.yaml with an experiment's values, restored whatever happens
"""

import os
import warnings

from matpac.progress import escape_logs

# Set here because Prefect sends its first message when it is imported. Set it to 0 to allow
# messages.
os.environ.setdefault("DO_NOT_TRACK", "1")
# Here because Prefect's workers import nothing but a flow.
escape_logs()
# Said when Prefect is imported; `server.shared` says what to do, if the folder is needed at all.
warnings.filterwarnings("ignore", "Failed to create the Prefect home directory")
