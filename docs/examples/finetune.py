"""Fine-tune an encoder by hand, in plain PyTorch.

python docs/examples/finetune.py <checkpoint> <folder>    # with a folder of recordings for each class
"""

import sys
from pathlib import Path

import soundfile
import torch
from scipy.signal import resample_poly
from torch.nn.utils.rnn import pad_sequence

import matpac

torch.manual_seed(0)
encoder = matpac.load(sys.argv[1])
files = sorted(Path(sys.argv[2]).glob("*/*.*"))
classes = sorted({path.parent.name for path in files})
labels = torch.tensor([classes.index(path.parent.name) for path in files], device=encoder.device)


def read(path: Path) -> torch.Tensor:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(resample_poly(samples.mean(1), encoder.sample_rate, rate))


clips = [read(path) for path in files]
order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(0)).tolist()
test, train = order[: len(order) // 4], order[len(order) // 4 :]

head = torch.nn.Linear(encoder.dim, len(classes)).to(encoder.device)
parts = [{"params": encoder.parameters(), "lr": 5e-4}, {"params": head.parameters(), "lr": 1e-2}]
optimizer = torch.optim.AdamW(parts, weight_decay=0.05)


def logits_of(numbers: list[int]) -> torch.Tensor:
    batch = [clips[number] for number in numbers]
    lengths = torch.tensor([len(clip) for clip in batch], device=encoder.device)
    waveform = pad_sequence(batch, batch_first=True).to(encoder.device)
    return head(encoder(waveform, lengths).mean)  # [batch, class]


for epoch in range(20):
    order = [train[position] for position in torch.randperm(len(train)).tolist()]
    for numbers in (order[start : start + 16] for start in range(0, len(order), 16)):
        loss = torch.nn.functional.cross_entropy(logits_of(numbers), labels[numbers])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        right = (logits_of(test).argmax(1) == labels[test]).float().mean()
    print(f"epoch {epoch + 1}: loss {loss:.3f}, {right:.0%} of {len(test)} held-out clips right")

encoder.save_pretrained("finetuned")  # matpac.load("finetuned") opens it
