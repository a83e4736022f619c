"""A schedule in a loop of one's own."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import compressor

torch.manual_seed(0)
digits = load_digits()
images, labels = torch.tensor(digits.data).float() / 16, torch.tensor(digits.target)
loader = DataLoader(TensorDataset(images[:1400], labels[:1400]), batch_size=64, shuffle=True)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
session = compressor.attach(
    "schedule.yaml", model, optimizer, epochs=6, steps_per_epoch=len(loader), sample_input=images[:64], images=1400
)
for epoch in range(6):
    model.train()
    with session.epoch(epoch):
        for batch, truth in loader:
            with session.step() as step:
                step.backward(nn.functional.cross_entropy(model(batch), truth))
    accuracy = (session.shipped_model()(images[1400:]).argmax(1) == labels[1400:]).float().mean()
    print(f"epoch {epoch}: {100 * accuracy:.1f} % of the test images")
report = compressor.report(session, latency=False)
print(f"{100 * report.totals.sparsity:.1f} % of the weights are zero")
torch.save(session.shipped_model().state_dict(), "pruned.pt")
