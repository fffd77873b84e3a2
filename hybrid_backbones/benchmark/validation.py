"""What the pydantic models of specs and rows have in common: strict types, and errors with one line per problem."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

Size = Annotated[
    list[PositiveInt], Field(min_length=2, max_length=2, description='height and width of an image in pixels')
]


class StrictModel(BaseModel):
    """Unknown keys are errors and nothing is converted; docstrings of fields are descriptions in the JSON schema."""

    model_config = ConfigDict(extra='forbid', strict=True, use_attribute_docstrings=True)


def describe_errors(error: ValidationError, skip: int = 0) -> list[str]:
    """One line per problem: `where: what is wrong, got VALUE`.

    Args:
        skip: Leading parts to leave out of every location, such as the tag of a union.
    """
    lines = []
    for problem in error.errors(include_url=False):
        where = '.'.join(map(str, problem['loc'][skip:])) or 'top level'
        value = problem['input']
        is_plain = isinstance(value, (str, int, float, bool)) and problem['type'] != 'missing'
        lines.append(f'{where}: {problem["msg"]}' + (f', got {value!r}' if is_plain else ''))
    return lines
