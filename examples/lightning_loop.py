"""The same schedule in Lightning: pip install 'compressor[lightning]'."""

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import compressor
from compressor.integrations.lightning import CompressionCallback

pl.seed_everything(0)
digits = load_digits()
images, labels = torch.tensor(digits.data).float() / 16, torch.tensor(digits.target)
loader = DataLoader(TensorDataset(images[:1400], labels[:1400]), batch_size=64, shuffle=True)


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


callback = CompressionCallback("schedule.yaml", images[:64], module="model", images=1400)
trainer = pl.Trainer(max_epochs=6, accelerator="cpu", callbacks=[callback], logger=False)
trainer.fit(Classifier(), loader)
report = compressor.report(callback.session, latency=False)
print(f"{100 * report.totals.sparsity:.1f} % of the weights are zero")
