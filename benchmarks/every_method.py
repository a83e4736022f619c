"""Every method of this package on one network: `make every-method DATA=folder [JOBS=n]`, hours, resumable.

LeNet-5 on 5,000 images of MNIST. All methods begin with the same dense network of a seed, train as many epochs under a
cosine, and have pruned by half of them; the schedules lie in benchmarks/one_network/. Each method has four trials for
each operating point, on seed 0, judged on 5,000 other images; the chosen one is trained with three seeds, and the test
images are used once, at the end. Where a method has no target but a strength, its trials are spread over strengths, and
each operating point takes the best of those that came near it.

Runs lie in runs/every-method/, results in docs/measured/every-method.json, from which the table of docs/results.md and
the picture are made. What that file has is not run again: without it, everything is.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from threading import Lock
from typing import Any

from benchmarks.paper_facts import facts, macs, structure
from benchmarks.recorded import commit
from benchmarks.reproduce import Place, train
from benchmarks.rows import Row, Stage

ROOT = Path(__file__).resolve().parents[1]
FOLDER, RUNS = ROOT / "docs" / "measured", ROOT / "runs" / "every-method"
FILE = FOLDER / "every-method.json"
HERE = "benchmarks/one_network"
SEEDS = (0, 1, 2)
EPOCHS = 16
"""Of the dense network, and again of each method; the schedules have their own numbers."""
RATES = (0.01, 0.02, 0.05, 0.1)
"""The learning rates that are tried where a method has no number of its own to tune,"""
TWO = (0.02, 0.1)
"""and where it has one."""
SPARSITIES = {0.8: "80 %", 0.9: "90 %", 0.95: "95 %", 0.98: "98 %"}
"""The operating points of single weights: the part that is pruned of the weights of all four layers."""
MACS = {0.7: "70 %", 0.5: "50 %", 0.3: "30 %"}
"""The operating points of whole filters: the multiply-accumulate operations that are left of the dense network's."""
ROUNDING = 0.01
"""A method without a target reached a point where at most this part more is left,"""
NEAR = 0.25
"""and came near it where at most this part of what may be left is missing."""

Sets = tuple[str, ...]
UNTESTED = ("test=false",)
AGP = "schedule.pruners.agp.rate.agp.final_sparsity"
LAYERS = ("conv1", "conv2", "fc1", "fc2")


@dataclass(frozen=True)
class Method:
    """One method: its schedule, the settings of an operating point, and what of it is tuned."""

    title: str
    schedule: str
    point: Callable[[float], Sets] = lambda point: ()
    strength: str | None = None
    """The key of the number of its own that is tuned."""
    tried: tuple[float, ...] = ()
    """Its values: two for a method with a target, else two for each operating point."""
    rates: tuple[float, float] = TWO
    """Learning rates, where it has a strength; else `RATES`."""
    fixed: Sets = ()
    like: str | None = None
    """The method whose pruned counts by layer it has."""

    @property
    def aims(self) -> bool:
        """Whether it prunes to a given sparsity or budget: two strengths are tried at each operating point, then."""
        return self.strength is None or len(self.tried) == len(TWO)


def _set(key: str) -> Callable[[float], Sets]:
    return lambda point: (f"{key}={point:g}",)


def _channels(point: float) -> Sets:
    """The smallest sparsity of both layers' input channels, in steps of 0.05, that leaves no more MACs than wanted."""
    return (f"schedule.policies.0.channel_pruning.sparsity={ {0.7: 0.2, 0.5: 0.35, 0.3: 0.55}[point] }",)


_FILTERS = "schedule.pruners.filters"
_SPARSITY = "schedule.policies.0.iht.sparsity"
ELEMENTS = {
    "agp": Method("AGP, each layer alike", "agp", _set(AGP)),
    "agp-global": Method("AGP, all layers together", "agp", _set(AGP), fixed=("schedule.pruners.agp.scope=global",)),
    "surgery": Method(
        "network surgery",
        "surgery",
        strength="schedule.gates.surgery.c",
        tried=(0.52, 0.57, 1.2, 1.3, 2.3, 2.4, 3.8, 4.2),
        rates=(0.02, 0.05),  # under 0.1 the same c leaves twice as much
    ),
    "iht": Method("IHT", "iht", _set(_SPARSITY)),
    "l0": Method(
        "L0 gates",
        "l0",
        strength="schedule.gates.l0.lambda",
        tried=(0.011, 0.013, 0.025, 0.03, 0.055, 0.065, 0.19, 0.23),
    ),
    "l1": Method(
        "L1, then one threshold",
        "l1",
        _set("schedule.pruners.threshold.rate.sparsity"),
        "schedule.regularizers.l1.reg_regims.*",
        (1e-5, 5e-5),
    ),
    "random": Method("random, each layer alike", "agp", _set(AGP), fixed=("schedule.pruners.agp.criterion=random",)),
    "shuffled": Method("random, AGP's count in each layer", "shuffled", like="agp-global"),
}
FILTERS = {
    "filters-l1": Method("L1 norm of filters", "filters", _set(f"{_FILTERS}.rate.macs.left")),
    "filters-apoz": Method(
        "APoZ", "filters", _set(f"{_FILTERS}.rate.macs.left"), fixed=(f"{_FILTERS}.criterion=apoz",)
    ),
    "filters-taylor": Method(
        "Taylor, all layers together",
        "filters",
        _set(f"{_FILTERS}.rate.macs.left"),
        fixed=(f"{_FILTERS}.criterion=taylor", f"{_FILTERS}.scope=global"),
    ),
    "group-lasso": Method(
        "group lasso",
        "group_lasso",
        _set(f"{_FILTERS}.rate.macs.left"),
        "schedule.regularizers.lasso.reg_regims.conv*.0",
        (1e-3, 5e-3),
    ),
    "l0-filters": Method(
        "L0 gates on filters",
        "l0_filters",
        strength="schedule.gates.l0.lambda",
        tried=(0.005, 0.007, 0.02, 0.025, 0.04, 0.06),
    ),
    "channels": Method("channel pruning", "channels", _channels),
    "filters-random": Method(
        "random filters", "filters", _set(f"{_FILTERS}.rate.macs.left"), fixed=(f"{_FILTERS}.criterion=random",)
    ),
}
DENSE = {"dense": Method("nothing pruned", "dense")}
METHODS = {**DENSE, **ELEMENTS, **FILTERS}


def points(method: str) -> Mapping[float, str]:
    """Return the operating points of a method, with what they are called."""
    if method in DENSE:
        return {0.0: "100 %"}
    return MACS if method in FILTERS else SPARSITIES


def trials(method: str) -> list[tuple[float | None, float, float | None]]:
    """Return what is tried of a method: (operating point or None for all, learning rate, strength)."""
    own = METHODS[method]
    if own.strength is None:
        return [(point, rate, None) for point, rate in product(points(method), RATES)]
    if own.aims:
        return [(point, rate, strength) for point, rate, strength in product(points(method), own.rates, own.tried)]
    return [(None, rate, strength) for rate, strength in product(own.rates, own.tried)]


def named(method: str, point: float | None, rate: float, strength: float | None) -> str:
    """Return the name of a trial in the file."""
    numbers = {"point": point, "rate": rate, "strength": strength}
    return ", ".join([method, *(f"{key} {value:g}" for key, value in numbers.items() if value is not None)])


def final(method: str, point: float, seed: int) -> str:
    """Return the name of a final run in the file."""
    return f"{method}, {point:g}, seed {seed}"


def asked() -> set[str]:
    """Return the names of all trials of the comparison; its file may have others, of numbers that were tried before."""
    methods = {named(method, *trial) for method in METHODS for trial in trials(method)}
    return methods | {named("base", None, rate, None) for rate in RATES}


def base(rate: float, sets: Sequence[str] = ()) -> Stage:
    """Return the dense network that all methods begin with."""
    return Stage(f"{HERE}/dense.yaml", f"{HERE}/lenet5.yaml", (f"optimizer.lr={rate:g}", *sets))


def stage(method: str, point: float, rate: float, strength: float | None, counts: Sequence[float] = ()) -> Stage:
    """Return one training of a method from the dense network; `counts`: the sparsity of each layer."""
    own = METHODS[method]
    sets = [f"optimizer.lr={rate:g}", *own.fixed, *own.point(point)]
    if own.strength is not None:
        sets.append(f"{own.strength}={strength:g}")
    for layer, sparsity in zip(LAYERS, counts, strict=bool(counts)):
        sets.append(f"schedule.pruners.{layer}.rate.agp.final_sparsity={sparsity:.9f}")
    return Stage(f"{HERE}/{own.schedule}.yaml", f"{HERE}/lenet5.yaml", tuple(sets), "base")


class Results:
    """The file of what is finished: trials and final runs, each written as soon as it is known."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, Lock()
        self.trials: dict[str, dict[str, Any]] = {}
        self.finals: dict[str, dict[str, Any]] = {}
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            self.trials, self.finals = found["trials"], found["finals"]

    def put(self, kind: dict[str, dict[str, Any]], name: str, found: dict[str, Any]) -> None:
        """Add one result; a process that is killed meanwhile leaves the old file."""
        with self._lock:
            kind[name] = found
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial = self._path.with_suffix(".partial")
            text = json.dumps({"trials": self.trials, "finals": self.finals}, indent=1, sort_keys=True)
            partial.write_text(text + "\n", encoding="utf-8")
            partial.replace(self._path)


def found_in(method: str, folder: Path, *, tested: bool) -> dict[str, Any]:
    """Return what is kept of a finished run."""
    known = facts(folder, "non-zero", tested=tested)
    tensors = json.loads((folder / "sparsity.json").read_text())["tensors"]
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    dense, thin = macs(folder)
    return {
        "method": method,
        **({"error": known["error"]} if tested else {}),
        "validation": facts(folder, "non-zero", tested=False)["error"],
        "left": thin / dense if method in FILTERS else known["weights_left"] / known["weights"],
        "parameters_left": known["parameters_left"],
        "layers": {one["name"]: one["nonzero"] / one["weights"] for one in tensors},
        "seconds": round(sum(json.loads(line)["seconds"] for line in lines), 3),
        "commit": commit(),
    }


def goal(method: str, point: float) -> float:
    """Return what is to be left at an operating point."""
    return point if method in FILTERS else 1 - point


def chosen(method: str, point: float, made: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the trial of lowest validation error at an operating point.

    Of a method without a target, those count that came near it; where there is none, the one that came nearest.
    """
    wanted, finished = goal(method, point), list(made)
    if METHODS[method].aims:
        finished = [trial for trial in finished if trial["point"] == point]
    else:
        near = [one for one in finished if (1 - NEAR) * wanted <= one["left"] <= (1 + ROUNDING) * wanted]
        finished = near or [min(finished, key=lambda one: abs(one["left"] - wanted))]
    return min(finished, key=lambda one: (one["validation"], one["rate"]))


def best_base(trials: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the trial of the dense network that all methods begin with."""
    made = [one for rate in RATES if "failed" not in (one := trials[named("base", None, rate, None)])]
    return min(made, key=lambda one: (one["validation"], one["rate"]))


def layers(of: Mapping[str, Any]) -> Sequence[float]:
    """Return the sparsity of each layer of a finished run."""
    return [1 - of["layers"][f"{layer}.weight"] for layer in LAYERS]


class Comparison:
    """The whole of it: trials, then final runs, then speed; what is finished is not done again."""

    def __init__(self, results: Results, data: str | None, jobs: int) -> None:
        self._results, self._jobs = results, jobs
        self._place = Place(RUNS, data, digests=True)

    def run(self) -> None:
        """Do what is missing."""
        self._all(partial(self._base_trial, rate) for rate in RATES)
        if asked() - set(self._results.trials):
            self._trained(self._base(tested=False), 0)  # alone: the runs beside each other begin with it
        like = [name for name, method in METHODS.items() if method.like is not None]
        for names in ([name for name in METHODS if name not in like], like):
            self._all(partial(self._trial, name, *trial) for name in names for trial in trials(name))
        begun = {seed for name in METHODS for point in points(name) for seed in SEEDS if self._lacks(name, point, seed)}
        self._all(partial(self._trained, self._base(tested=True), seed) for seed in sorted(begun))
        for names in ([name for name in METHODS if name not in like], like):
            self._all(partial(self._final, *one) for one in product(names, SEEDS))
        for name, made in list(self._results.finals.items()):  # one after the other, so that nothing else runs
            if made["method"] in FILTERS and "times_as_fast" not in made:
                speed = structure(Path(ROOT / made["folder"]))["times_as_fast"]
                self._results.put(self._results.finals, name, {**made, "times_as_fast": speed})

    def _all(self, work: Iterable[Callable[[], object]]) -> None:
        with ThreadPoolExecutor(self._jobs) as pool:
            for done in [pool.submit(one) for one in work]:
                done.result()

    def _trained(self, stages: dict[str, Stage], seed: int) -> Path:
        """Return the finished run of the last of these stages."""
        return train(next(reversed(stages)), Row("", "", {}, stages), seed, self._place)

    def _base(self, *, tested: bool) -> dict[str, Stage]:
        return {"base": base(best_base(self._results.trials)["rate"], () if tested else UNTESTED)}

    def _made(self, method: str) -> list[dict[str, Any]]:
        made = (self._results.trials[named(method, *trial)] for trial in trials(method))
        return [one for one in made if "failed" not in one]

    def _base_trial(self, rate: float) -> None:
        self._try(named("base", None, rate, None), {"method": "base", "rate": rate}, {"base": base(rate, UNTESTED)})

    def _trial(self, method: str, point: float | None, rate: float, strength: float | None) -> None:
        own: dict[str, Any] = {"method": method, "point": point, "rate": rate, "strength": strength}
        like = METHODS[method].like
        counts = () if like is None else layers(chosen(like, point or 0.0, self._made(like)))
        made = stage(method, point or 0.0, rate, strength, counts)
        tried = replace(made, sets=(*made.sets, *UNTESTED))
        self._try(named(method, point, rate, strength), own, {**self._base(tested=False), method: tried})

    def _try(self, name: str, own: Mapping[str, Any], stages: dict[str, Stage]) -> None:
        if name in self._results.trials:
            return
        try:
            folder = self._trained(stages, 0)
        except SystemExit as error:  # a rate that is too high
            self._results.put(self._results.trials, name, {**own, "failed": str(error)})
        else:
            self._results.put(self._results.trials, name, {**own, **found_in(own["method"], folder, tested=False)})

    def _lacks(self, method: str, point: float, seed: int) -> bool:
        """Return whether a final run is missing, or was made with numbers that are not the chosen ones any more."""
        best, made = chosen(method, point, self._made(method)), self._results.finals.get(final(method, point, seed))
        return made is None or (made["rate"], made["strength"]) != (best["rate"], best["strength"])

    def _final(self, method: str, seed: int) -> None:
        for point in points(method):
            if not self._lacks(method, point, seed):
                continue
            best = chosen(method, point, self._made(method))
            like = METHODS[method].like
            counts = () if like is None else layers(self._results.finals[final(like, point, seed)])
            own = stage(method, point, best["rate"], best["strength"], counts)
            folder = self._trained({**self._base(tested=True), method: own}, seed)
            kept = {"point": point, "seed": seed, "rate": best["rate"], "strength": best["strength"]}
            where = {"folder": folder.relative_to(ROOT).as_posix()}
            name = final(method, point, seed)
            self._results.put(self._results.finals, name, {**found_in(method, folder, tested=True), **kept, **where})


def main() -> None:
    """Do what is missing, then write the table and the picture."""
    from benchmarks import every_method_table as table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("COMPRESS_DATA"))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    given = parser.parse_args()
    results = Results(FILE)
    Comparison(results, given.data, given.jobs).run()
    table.write(results.trials, results.finals)
    print(table.text(results.trials, results.finals))


if __name__ == "__main__":
    main()
