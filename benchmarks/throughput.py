"""Images a second of the trainer beside a bare loop over the same tensors.

    python -m benchmarks.throughput [--blocks 7] [--images 512]

resnet20_cifar on random images of 32 pixels in memory, batch 128, shifts and mirrors by the same functions: the bare
loop indexes the tensors, prepares and augments whole batches, takes the step and counts loss and hits. The trainer has
a schedule with no policy in force. One thread; CPU time; the two take turns, and the bare loop is measured twice.
"""

import argparse
import copy
import itertools
import time
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.measuring import Figure, Step, ratio, take_turns
from benchmarks.step_overhead import SCHEDULES
from compressor import models
from compressor.config import Config
from compressor.data import DataFeed
from compressor.data.memory import in_memory
from compressor.data.pipeline import augment, prepare
from compressor.schedule.document import parse
from compressor.schedule.faults import Faults
from compressor.schedule.grammar import read
from compressor.session.start import start
from compressor.training import optimizers
from compressor.training.trainer import Trainer

CPU = torch.device("cpu")
LEAST = 0.98
BATCH = 128


def figures(
    count: int, blocks: int, device: torch.device = CPU, clock: Callable[[], float] = time.process_time
) -> list[Figure]:
    """Images a second of the trainer / those of the bare loop, by `count` images an epoch."""
    torch.manual_seed(0)
    config = Config.model_validate(
        {
            "model": {"name": "resnet20_cifar"},
            "data": {"name": "random", "batch": BATCH, "validation": 0, "augment": ["crop", "flip"]},
            "optimizer": {"name": "sgd", "lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4},
            "epochs": 100_000,
        }
    )
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    labels = torch.randint(0, 10, (count,))
    few = images[:BATCH], labels[:BATCH]
    data = in_memory("random", (images, labels), few, [str(number) for number in range(10)], config.data)
    network = models.build("resnet20_cifar", num_classes=10).to(device)

    def trained() -> Step:
        faults, own = Faults(), copy.deepcopy(network)
        bound = read(parse("benchmark", SCHEDULES["no policy"], faults), faults).bind(own, config.epochs, faults)
        faults.raise_any()
        feed = DataFeed(data, config.data, 0, device)
        optimizer = optimizers.build(own, config.optimizer)
        session = start(config, own, optimizer, bound.policies, feed, lambda text: None, shape=(3, 32, 32))
        more = {"validates": lambda epoch: False}
        trainer = Trainer(session, feed, config, device, [], lambda kind: None, lambda: None, **more)
        numbers = itertools.count(10)  # the schedule's only event is in epoch 9
        return lambda: trainer._epoch(next(numbers))

    def plain() -> Step:
        own = copy.deepcopy(network).train()
        optimizer = optimizers.build(own, config.optimizer)
        criterion = nn.CrossEntropyLoss()
        held, truth = images.to(device), labels.to(device)
        numbers = itertools.count()

        def epoch() -> None:
            number = next(numbers)
            order = torch.randperm(count)
            there = order.to(device)
            loss_sum, hits = torch.zeros((), device=device), torch.zeros((), device=device)
            for first in range(0, count, BATCH):
                chosen, indices = there[first : first + BATCH], order[first : first + BATCH]
                batch = prepare(held.index_select(0, chosen), data.mean, data.std)
                batch = augment(batch, indices, seed=0, epoch=number, kinds=("crop", "flip"))
                wanted = truth.index_select(0, chosen)
                logits = own(batch)
                loss = criterion(logits, wanted)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                loss_sum += loss.detach() * len(wanted)
                hits += logits.argmax(1).eq(wanted).sum()
            loss_sum.item()
            hits.item()

        return epoch

    taken = take_turns({"bare": plain(), "again": plain(), "trainer": trained()}, blocks, clock=clock)
    again = ratio(taken["bare"], taken["again"])
    rate = count / sorted(taken["trainer"])[len(taken["trainer"]) // 2]
    note = f"{rate:,.0f} images a second" + (" of CPU" if device == CPU else "")
    return [
        Figure(
            "trainer, images a second / a bare loop's over the same tensors",
            ratio(taken["bare"], taken["trainer"]),
            budget=LEAST,
            at_least=True,
            again=again,
            note=note,
        )
    ]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--blocks", type=int, default=7)
    arguments.add_argument("--images", type=int, default=512)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    for figure in figures(given.images, given.blocks):
        print(f"{figure.what}: {figure.value:.3f} (again {figure.again:.3f}; at least {LEAST}), {figure.note}")


if __name__ == "__main__":
    main()
