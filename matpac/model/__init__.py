"""batch -> losses.

encoder.py    transformer of student and teacher
flops.py      networks -> floating-point operations of a training step
head.py       latents -> class logits
losses.py     Eqs. (1) to (5) of the paper
masking.py    crops -> mixtures of two; patch grid -> visible and masked patches
patches.py    log-mel -> patches with sine-cosine positions; their latents -> steps over time
pooling.py    steps over time -> an embedding of the clip
predictor.py  visible latents -> predicted latents
pretext.py    Figure 1 of the paper, as code; moving averages: teacher, center
sizes.py      model sizes `tiny` and `base`
"""
