import numpy as np
import pytest

from matpac.finetuning.fit import untrained_head
from matpac.finetuning.groups import new_optimizer, set_learning_rate_


def test_learning_rates_fall_by_the_layer_and_biases_do_not_decay(encoder, params):
    head = untrained_head(np.random.default_rng(0).normal(size=(4, encoder.dim)).astype(np.float32), 3, (0,))
    optimizer = new_optimizer(encoder, head, params.finetune.model_copy(update={"layer_decay": 0.5}))
    set_learning_rate_(optimizer, 0.8)
    rates = {id(weight): group["lr"] for group in optimizer.param_groups for weight in group["params"]}
    first, second = encoder.encoder.blocks
    assert rates[id(head.weight)] == rates[id(encoder.encoder.norm.weight)] == 0.8
    for layer, rate in ((second, 0.4), (first, 0.2), (encoder.patches, 0.1)):
        [found] = {rates[id(weight)] for weight in layer.parameters()}
        assert found == pytest.approx(rate)
    assert len(rates) == len(list(encoder.parameters())) + 2
    decaying = {group["weight_decay"] for group in optimizer.param_groups if group["params"][0].ndim > 1}
    others = {group["weight_decay"] for group in optimizer.param_groups if group["params"][0].ndim == 1}
    assert (decaying, others) == ({params.finetune.weight_decay}, {0.0})
