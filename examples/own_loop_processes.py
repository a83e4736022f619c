"""The same loop on several processes: torchrun --nproc-per-node 2 own_loop_processes.py"""

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import compressor

dist.init_process_group("gloo")  # on GPUs: "cpu:gloo,cuda:nccl"
torch.manual_seed(dist.get_rank())  # what the loop itself draws, for dropout, differs by process
digits = load_digits()
images, labels = torch.tensor(digits.data).float() / 16, torch.tensor(digits.target)
train = TensorDataset(images[:1400], labels[:1400])
sampler = DistributedSampler(train)
loader = DataLoader(train, batch_size=64 // dist.get_world_size(), sampler=sampler)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
network = DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
session = compressor.attach(
    "schedule.yaml", network, optimizer, epochs=6, steps_per_epoch=len(loader), sample_input=images[:64], images=1400
)
for epoch in range(6):
    sampler.set_epoch(epoch)
    network.train()
    with session.epoch(epoch):
        for batch, truth in loader:
            with session.step() as step:
                step.backward(nn.functional.cross_entropy(network(batch), truth))
    if dist.get_rank() == 0:
        accuracy = (session.shipped_model()(images[1400:]).argmax(1) == labels[1400:]).float().mean()
        print(f"epoch {epoch}: {100 * accuracy:.1f} % of the test images")
if dist.get_rank() == 0:
    report = compressor.report(session, latency=False)
    print(f"{100 * report.totals.sparsity:.1f} % of the weights are zero")
    torch.save(session.shipped_model().state_dict(), "pruned.pt")
dist.destroy_process_group()
