"""A sparsity that is drawn, as in Distiller's RandomLevelStructureParameterPruner."""

from typing import Annotated, ClassVar, Self

import torch
from pydantic import Field, model_validator

from compressor.rates.rate import Rate, Sparsity, SparsityGoal, State
from compressor.timing import Window


class RandomRate(Rate, name="random"):
    """Draw a sparsity evenly from [least, most] at each event, one for all weights (Distiller)."""

    example: ClassVar[str] = "{random: [0.2, 0.6]}"
    main: ClassVar[str] = "between"

    between: Annotated[list[Sparsity], Field(min_length=2, max_length=2, description="[least, most]")] = Field(
        description="[least, most]: range from which the sparsity is drawn, at each event"
    )

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.between[0] > self.between[1]:
            raise ValueError(f"random should be [least, most], got {self.between}")
        return self

    def goal(self, window: Window, time: int, state: State) -> SparsityGoal:
        least, most = self.between
        return SparsityGoal(least + (most - least) * float(torch.rand((), generator=state.stream)))

    def foresee(self, window: Window, time: int) -> SparsityGoal:
        return SparsityGoal(self.between[0])

    def unknown(self) -> str:
        return f"its sparsity is drawn between {self.between[0]:g} and {self.between[1]:g}"

    def threshold(self, window: Window, time: int) -> str:
        return f"a sparsity drawn between {self.between[0]:g} and {self.between[1]:g}"
