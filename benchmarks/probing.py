"""Linear probes on a dataset of ESC-50's size: epochs of a probe per second.

2,000 clips of 3,840 features, 50 classes, five folds, five repeats: 25 probes. Ours is
`fit_probes`. The peer is the loop of most evaluation code, one probe after the other: nn.Linear,
DataLoader over a TensorDataset, torch.optim.Adam, CrossEntropyLoss, the running loss by `.item()`,
a validation loss after every epoch, the best `state_dict` kept, early stopping. A second peer
leaves out what such a loop can do without: its batches are rows of one tensor, and only the
validation loss is read back.

All begin with the same weights and see the clips in the same order, so the scores are the same:
best epochs and accuracies are compared for the probes that are timed, and for smaller ones that
train until they stop. Float32, on a GPU if there is one.

The limit is the matrix products of training's forward and backward passes alone: as many, of the
same shapes, on as many cores, on one batch that stays in the cache. Gathering batches, Adam, losses
and validation come on top for everyone who takes these steps.
"""

import copy
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from benchmarks.claims import Claim, run, seconds
from matpac.devices import device_or_default, num_workers, workers
from matpac.params import Probe
from matpac.probing.folds import Fold, cross_validation_fold
from matpac.probing.linear import fit_probes

DEVICE = device_or_default()
ROUNDS = 3
NUM_FOLDS = 5
SHARE_OF_LIMIT = 0.45
SAME_ACCURACY, SAME_BEST_EPOCHS = 0.002, 0.9
"""Mean difference of the probes' accuracies; share of the probes with the same best epoch."""


class Dataset(NamedTuple):
    features: Tensor
    """On the device, as `matpac probe` has them."""
    classes: Tensor
    folds: list[Fold]


class Score(NamedTuple):
    """Of one probe."""

    best_epoch: int
    accuracy: float


Fitting = Callable[[Dataset, Probe], list[Score]]


def measure() -> list[Claim]:
    check(dataset(400, 512, 10, distance=4), params(60, patience_epochs=3, learning_rate=1e-2))
    esc50, probe = dataset(2000, 3840, 50, distance=8), params(5, patience_epochs=5, learning_rate=1e-3)
    # This call is also the warm-up.
    check(esc50, probe)
    spent = seconds(
        {
            "ours": lambda: timed(ours, esc50, probe),
            "usual": lambda: timed(usual_loop, esc50, probe),
            "lean": lambda: timed(lean_loop, esc50, probe),
            "products": lambda: matrix_products(esc50, probe),
        },
        ROUNDS,
    )
    num_epochs = probe.num_repeats * NUM_FOLDS * probe.max_epochs
    rate = {name: num_epochs / value for name, value in spent.items()}
    what, unit = f"linear probes of ESC-50's size, {DEVICE.type.upper()}", "epochs/s"
    return [
        Claim(
            what,
            unit,
            rate["ours"],
            "matrix products alone",
            rate["products"],
            goal=SHARE_OF_LIMIT,
            is_limit=True,
        ),
        Claim(what, unit, rate["ours"], "nn.Linear, DataLoader, one by one", rate["usual"], goal=1.5),
        Claim(what, unit, rate["ours"], "the same without DataLoader", rate["lean"], goal=1),
    ]


def check(data: Dataset, probe: Probe) -> None:
    expected = np.array(usual_loop(data, probe))
    for fitting in (ours, lean_loop):
        off_by, difference = np.abs(np.array(fitting(data, probe)) - expected).T
        # A clip between two classes may change sides by rounding.
        if np.mean(off_by == 0) < SAME_BEST_EPOCHS or difference.mean() > SAME_ACCURACY:
            raise RuntimeError(f"{fitting.__name__}: need the peer's scores, got {off_by}, {difference}")


def dataset(num_clips: int, dim: int, num_classes: int, distance: float) -> Dataset:
    """Unit noise around class means at `distance` from the origin; a probe is mostly right."""
    random = np.random.default_rng(0)
    classes = np.arange(num_clips) % num_classes
    means = random.normal(0, distance / dim**0.5, (num_classes, dim))
    features = means[classes] + random.normal(0, 1, (num_clips, dim))
    members = np.arange(num_clips) // num_classes % NUM_FOLDS + 1
    return Dataset(
        torch.from_numpy(features).float().to(DEVICE),
        torch.from_numpy(classes).to(DEVICE),
        [cross_validation_fold(members, test, NUM_FOLDS) for test in range(1, NUM_FOLDS + 1)],
    )


def params(max_epochs: int, patience_epochs: int, learning_rate: float) -> Probe:
    return Probe(
        datasets=(),
        num_repeats=5,
        batch_size=128,
        learning_rate=learning_rate,
        max_epochs=max_epochs,
        patience_epochs=patience_epochs,
        standardize=False,
        knn=None,
        attentive=None,
        seed=0,
    )


def timed(fitting: Fitting, data: Dataset, probe: Probe) -> None:
    fitting(data, probe)
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def ours(data: Dataset, probe: Probe) -> list[Score]:
    labels = nn.functional.one_hot(data.classes).float()
    fits = fit_probes(data.features, labels, torch.ones_like(labels), data.folds, probe, multi_label=False)
    return [
        Score(
            fit.best_epoch,
            accuracy(torch.from_numpy(fit.test_logits), data.classes[data.folds[fit.fold].test].cpu()),
        )
        for fit in fits
    ]


class Shuffled(Sampler[int]):
    """Like DataLoader's `shuffle=True`, but in the order of ours."""

    def __init__(self, clips: np.ndarray, random: np.random.Generator) -> None:
        self.clips, self.random = clips, random

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[int]:
        return iter(self.random.permutation(self.clips).tolist())


def usual_loop(data: Dataset, probe: Probe) -> list[Score]:
    whole = TensorDataset(data.features.cpu(), data.classes.cpu())

    def loader(sampler: Sampler[int] | list[int]) -> DataLoader:
        return DataLoader(whole, probe.batch_size, sampler=sampler, pin_memory=DEVICE.type == "cuda")

    scores = []
    criterion = nn.CrossEntropyLoss()
    for repeat in range(probe.num_repeats):
        for index, fold in enumerate(data.folds):
            random, orders = np.random.default_rng([probe.seed, repeat, index]).spawn(2)
            model = first_layer(data, random)
            optimizer = torch.optim.Adam(model.parameters(), lr=probe.learning_rate)
            training = loader(Shuffled(fold.train, orders))
            validation, test = loader(fold.validation.tolist()), loader(fold.test.tolist())
            best_loss, best_epoch, best_state = float("inf"), 0, model.state_dict()
            for epoch in range(1, probe.max_epochs + 1):
                model.train()
                running_loss = 0.0
                for inputs, classes in training:
                    inputs, classes = inputs.to(DEVICE), classes.to(DEVICE)
                    optimizer.zero_grad()
                    loss = criterion(model(inputs), classes)
                    loss.backward()
                    optimizer.step()
                    running_loss += loss.item() * len(inputs)
                model.eval()
                validation_loss = 0.0
                with torch.no_grad():
                    for inputs, classes in validation:
                        inputs, classes = inputs.to(DEVICE), classes.to(DEVICE)
                        validation_loss += criterion(model(inputs), classes).item() * len(inputs)
                if validation_loss < best_loss:
                    best_loss, best_epoch = validation_loss, epoch
                    best_state = copy.deepcopy(model.state_dict())
                elif epoch - best_epoch >= probe.patience_epochs:
                    break
            model.load_state_dict(best_state)
            with torch.no_grad():
                logits = torch.cat([model(inputs.to(DEVICE)).cpu() for inputs, _ in test])
            scores.append(Score(best_epoch, accuracy(logits, data.classes[fold.test].cpu())))
    return scores


def lean_loop(data: Dataset, probe: Probe) -> list[Score]:
    scores = []
    criterion = nn.CrossEntropyLoss()
    for repeat in range(probe.num_repeats):
        for index, fold in enumerate(data.folds):
            random, orders = np.random.default_rng([probe.seed, repeat, index]).spawn(2)
            model = first_layer(data, random)
            optimizer = torch.optim.Adam(model.parameters(), lr=probe.learning_rate)
            held_out, held_out_classes = data.features[fold.validation], data.classes[fold.validation]
            best_loss, best_epoch, best_state = float("inf"), 0, model.state_dict()
            for epoch in range(1, probe.max_epochs + 1):
                order = torch.from_numpy(orders.permutation(fold.train)).to(DEVICE)
                for batch in order.split(probe.batch_size):
                    optimizer.zero_grad()
                    criterion(model(data.features[batch]), data.classes[batch]).backward()
                    optimizer.step()
                with torch.no_grad():
                    validation_loss = criterion(model(held_out), held_out_classes).item()
                if validation_loss < best_loss:
                    best_loss, best_epoch = validation_loss, epoch
                    best_state = copy.deepcopy(model.state_dict())
                elif epoch - best_epoch >= probe.patience_epochs:
                    break
            model.load_state_dict(best_state)
            with torch.no_grad():
                logits = model(data.features[fold.test])
            scores.append(Score(best_epoch, accuracy(logits, data.classes[fold.test])))
    return scores


def first_layer(data: Dataset, random: np.random.Generator) -> nn.Linear:
    """A layer with the initial weights of ours."""
    dim, num_classes = data.features.shape[1], int(data.classes.max()) + 1
    drawn = random.uniform(-1 / dim**0.5, 1 / dim**0.5, (dim + 1, num_classes))
    layer = nn.Linear(dim, num_classes)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(drawn[:-1].T))
        layer.bias.copy_(torch.from_numpy(drawn[-1]))
    return layer.to(DEVICE)


def accuracy(logits: Tensor, classes: Tensor) -> float:
    return (logits.argmax(1) == classes).float().mean().item()


def matrix_products(data: Dataset, probe: Probe) -> None:
    """The products of training: probe by probe on each core, on a GPU for all probes at once."""
    dim, num_classes = data.features.shape[1], int(data.classes.max()) + 1
    num_probes = probe.num_repeats * len(data.folds)
    num_together = num_probes if DEVICE.type == "cuda" else 1
    num_steps = len(data.folds[0].train) / probe.batch_size * probe.max_epochs

    def multiply(_: int) -> None:
        inputs = data.features[: probe.batch_size].expand(num_together, -1, -1).contiguous()
        weight = inputs.new_zeros(num_together, num_classes, dim)
        logits = inputs.new_zeros(num_together, num_classes, probe.batch_size)
        for _ in range(round(num_steps)):
            torch.bmm(weight, inputs.mT, out=logits)
            torch.bmm(logits, inputs, out=weight)

    with workers(num_workers(DEVICE)) as pool:
        list(pool.map(multiply, range(num_probes // num_together)))
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    run(measure, __doc__)
