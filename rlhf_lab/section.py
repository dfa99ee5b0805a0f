"""What all sections of a config have in common: frozen, unknown keys forbidden, mistakes answered with what to type.

Leaves out every option; those are in `config.py` and `ppo_config.py`.
"""

import difflib
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlhf_lab.errors import UserError

Count = Annotated[int, Field(ge=1)]
CountOrNever = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# The schedules of transformers that need no settings of their own.
Schedule = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"
]
Bf16 = bool | Literal["auto"]  # auto: where the machine has instructions for it
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys forbidden, mistakes answered with a suggestion."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    RENAMED: ClassVar[dict[str, str]] = {}  # names that other libraries use for our keys, and what to type instead

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UserError(_explain(type(self), error)) from None


def must_divide(whole_name: str, whole: int, part_name: str, part: int) -> None:
    if whole % part:
        below = max(d for d in range(1, part + 1) if whole % d == 0)
        raise ValueError(f"{part_name}={part} does not divide {whole_name}={whole}; type {part_name}={below}")


def _explain(section: type[Section], error: ValidationError) -> str:
    return "; ".join(_explain_one(section, dict(one)) for one in error.errors())


def _explain_one(section: type[Section], one: dict[str, Any]) -> str:
    key, wrong = ".".join(str(part) for part in one["loc"]), str((one["loc"] or ("",))[-1])
    if one["type"] == "value_error":  # from a validator of ours, or from a section inside this one
        message = one["msg"].removeprefix("Value error, ")
        return f"{key}: {message}" if key else message
    if one["type"] != "extra_forbidden":
        return f"{key}={one['input']!r}: {one['msg']}"
    if wrong in section.RENAMED:
        return f"unknown key {wrong!r}: {section.RENAMED[wrong]}"
    known = list(section.model_fields)
    if close := difflib.get_close_matches(wrong, known, n=1):
        return f"unknown key {wrong!r}: did you mean {close[0]!r}?"
    return f"unknown key {wrong!r}; known here: {', '.join(known)}"
