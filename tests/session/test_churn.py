"""Which policy changed how many entries of the masks, and in which step: a schedule whose counts are known."""

from typing import Any

from bare import STEPS, batches, session, whole_step

from compressor.session.session import Session, Settings

# fc3.weight and fc4.weight have 64 entries each.
TEXT = """
version: 2
policies:
  - pruner: {class: AutomatedGradualPruner, initial_sparsity: 0.25, final_sparsity: 0.5, weights: [fc3.weight]}
    starting_step: 1
    ending_step: 4
    step_frequency: 2
  - pruner: {class: SparsityLevelParameterPruner, levels: {fc4.weight: 0.5}, args: {mask_on_forward_only: true}}
    starting_epoch: 0
    ending_epoch: 1
"""
AGP, LEVEL = "0.AutomatedGradualPruner", "1.SparsityLevelParameterPruner"


def event(step: int, policy: str, pruned: int, revived: int) -> dict[str, Any]:
    return {"step": step, "policy": policy, "pruned": pruned, "revived": revived}


FIRST = [event(0, LEVEL, 32, 0), event(1, AGP, 16, 0), event(3, AGP, 16, 0), event(STEPS, LEVEL, 0, 32)]
"""Of the first epoch: 0.5 * 64; 0.25 * 64; 0.5 * 64 in all; after the last step the second window ends."""


def epoch(it: Session, number: int) -> None:
    with it.epoch(number):
        for images, labels in batches(number):
            whole_step(it, images, labels)


def test_each_event_has_its_policy_its_step_and_its_counts_and_each_weight_their_sums() -> None:
    it = session(TEXT, settings=Settings())
    epoch(it, 0)
    assert it.churn.take() == (FIRST, {"fc4.weight": (32, 32), "fc3.weight": (32, 0)})
    assert it.churn.take() == ([], {})
    epoch(it, 1)
    assert it.churn.take() == ([], {})


def test_events_that_nobody_takes_are_forgotten_with_the_next_epoch_that_has_some() -> None:
    again = TEXT.replace("ending_step: 4", "ending_step: 8")
    it = session(again, settings=Settings())
    epoch(it, 0)
    epoch(it, 1)
    events, _ = it.churn.take()
    assert [(one["step"], one["policy"]) for one in events] == [(1, AGP), (3, AGP)]


def test_a_trial_leaves_no_event() -> None:
    it = session(TEXT, settings=Settings())
    with it.trial():
        epoch(it, 0)
    assert it.churn.take() == ([], {})
    epoch(it, 0)
    assert it.churn.take()[0] == FIRST


def test_zeros_that_are_held_from_the_beginning_are_an_event_of_their_own() -> None:
    it = session(TEXT, settings=Settings())
    it.network.parameters["fc2.weight"].data[0] = 0  # 8 entries
    it.keep_zeros()
    assert it.churn.take() == ([event(0, "init", 8, 0)], {"fc2.weight": (8, 0)})


def test_a_state_of_an_older_version_has_no_events() -> None:
    it = session(TEXT, settings=Settings())
    state = it.state_dict()
    del state["churn"]
    it.network.parameters["fc2.weight"].data[0] = 0
    it.keep_zeros()
    it.load_state_dict(state)
    epoch(it, 0)
    assert it.churn.take()[0] == FIRST
