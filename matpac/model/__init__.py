"""batch -> losses.

encoder.py    the transformer of student and teacher
flops.py      what a training step costs
head.py       latents -> class logits
losses.py     Eqs. (1) to (5)
masking.py    which patches are masked
patches.py    log-mel -> patches with sine-cosine positions
predictor.py  visible latents -> predicted latents
pretext.py    Figure 1 of the paper, as code
sizes.py      `tiny` and `base`
steps.py      latents -> steps over time, and their mean
teacher.py    moving averages
"""
