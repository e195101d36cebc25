"""The base of every section of a recipe."""

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """A frozen, validated group of settings; unknown keys are refused, field docstrings are the help text."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)
