"""The base of every section of a recipe."""

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """A frozen, validated group of settings: no unknown keys, no numbers that are not finite; field docstrings are the help text."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, validate_default=True
    )
