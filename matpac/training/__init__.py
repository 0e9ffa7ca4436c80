"""batches -> weights.

cost.py       what a run costs, before it begins
health.py     signs of collapse
history.py    metrics.csv, online.csv and DVCLive
initial.py    the weights a run begins with
log.py        what a person sees of a run
loop.py       one update, and the loop around it
objective.py  one forward pass, to the losses
online.py     how much embeddings say about labelled clips, while training
ranks.py      one process a GPU, training together
run.py        a run that survives its process
schedules.py  update number -> everything that changes with time
"""
