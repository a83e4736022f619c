"""The same schedule in Hugging Face's Trainer: pip install 'compressor[transformers]'."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from transformers import Trainer, TrainingArguments

import compressor
from compressor.integrations.transformers import CompressionCallback

torch.manual_seed(0)
digits = load_digits()
images, labels = torch.tensor(digits.data).float() / 16, torch.tensor(digits.target)
train = [{"pixel_values": image, "labels": label} for image, label in zip(images[:1400], labels[:1400], strict=True)]


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, pixel_values, labels=None):
        logits = self.model(pixel_values)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


classifier = Classifier()
optimizer = torch.optim.SGD(classifier.parameters(), lr=0.1, momentum=0.9)
session = compressor.attach(
    "schedule.yaml", classifier.model, optimizer, epochs=6, steps_per_epoch=22, sample_input=images[:64], images=1400
)
arguments = TrainingArguments(
    "checkpoints",
    num_train_epochs=6,
    per_device_train_batch_size=64,
    max_grad_norm=0,
    lr_scheduler_type="constant",
    save_strategy="epoch",
    use_cpu=True,
    report_to=[],
)
callbacks = [CompressionCallback(session)]
Trainer(classifier, arguments, train_dataset=train, optimizers=(optimizer, None), callbacks=callbacks).train()
report = compressor.report(session, latency=False)
print(f"{100 * report.totals.sparsity:.1f} % of the weights are zero")
