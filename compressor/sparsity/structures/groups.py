"""Groups of weights as Distiller's schedules give them: `[number, group]` for a weight."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from compressor.errors import did_you_mean
from compressor.sparsity.structures.structure import Structure, plain_structures


def groups() -> dict[str, Structure]:
    """Return the structures into which a weight can be divided, by name: those without arguments, except single
    weights.
    """
    return {name: structure for name, structure in sorted(plain_structures().items()) if not structure.single}


class GroupName:
    """Mark a string that names a group; with `joined`, one or several groups: `Rows+Cols`."""

    def __init__(self, *, joined: bool) -> None:
        self.joined = joined

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def _known(self, name: str) -> str:
        known, parts = groups(), name.split("+") if self.joined else [name]
        for part in parts:
            if part not in known:
                raise ValueError(f"there is no group {part!r}: {did_you_mean(part, known)}")
        if len({known[part] for part in parts}) < len(parts):
            raise ValueError(f"{name!r} names a group twice: remove one of them")
        return name

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        if not self.joined:
            return {"enum": list(groups())}
        one = "|".join(groups())
        return {"anyOf": [{"enum": list(groups())}, {"type": "string", "pattern": rf"^({one})(\+({one}))+$"}]}


class Pair:
    """Mark a tuple that YAML gives as a list of two; `form` is its name in messages."""

    def __init__(self, form: str) -> None:
        self.form = form

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._two, handler(source))

    def _two(self, value: Any) -> Any:
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
            raise ValueError(f"should be {self.form}")
        return tuple(value)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        # The `prefixItems` of later drafts are `items` in an editor's draft 07.
        return {"type": "array", "minItems": 2, "maxItems": 2, "items": handler(schema)["prefixItems"]}


Group = Annotated[str, GroupName(joined=False)]
Groups = Annotated[str, GroupName(joined=True)]
