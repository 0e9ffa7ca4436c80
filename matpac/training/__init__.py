"""batches -> weights.

cost.py       floating-point operations and hours of a run, before it begins
gradients.py  gradients of all ranks -> their mean, through shared memory
health.py     views of an update -> signs of collapse
history.py    metrics.csv, online.csv and DVCLive's plots; signs of collapse in a row
initial.py    trained weights -> a run that begins with them
log.py        progress, tables and warnings while a run goes on
loop.py       one optimizer update, and the loop around it
objective.py  one forward pass to the losses, as one module
online.py     k-NN accuracy and rank of labelled clips, while training
ranks.py      processes that train together, one a GPU or a core
references.py curves of a run over those of its preset, and where it leaves them
run.py        a run that can be killed at any time and resumes
schedules.py  update number -> learning rate, temperatures and decays
"""
