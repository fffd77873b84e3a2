"""`table_size`, the image size in pixels that a family's tables of positions are stored for."""

from collections.abc import Sequence

from mmengine.logging import print_log

# What checkpoint_advice says of a table that cannot be resized, because its shape does not tell its grid.
NOT_SQUARE = (
    'Its table of positions is of another size than here, and its grid is not square, so that it cannot be resized. '
    'Build the network with table_size=(H, W), the height and width in pixels that the file was made for.'
)


def parse_table_size(family: str, table_size: int | Sequence[int], multiple: int) -> tuple[int, int]:
    """Height and width in pixels.

    Args:
        family: Class that the option is of, for the error.
        table_size: Side of square images, or (H, W).
        multiple: What both have to be a multiple of.

    Raises:
        ValueError: Anything else.
    """
    sides = (table_size, table_size) if isinstance(table_size, int) else table_size
    valid = isinstance(sides, Sequence) and len(sides) == 2 and all(isinstance(side, int) for side in sides)
    if not valid or any(side <= 0 or side % multiple for side in sides):
        raise ValueError(
            f'table_size={table_size!r} of {family}: expected a positive multiple of {multiple} pixels, or two of them '
            'as (H, W)'
        )
    return tuple(sides)


def as_option(size: tuple[int, int]) -> int | tuple[int, int]:
    """`table_size` as one writes it: one number for square images."""
    return size[0] if size[0] == size[1] else size


def log_resizing(family: str, given: tuple[int, int], own: tuple[int, int]) -> None:
    """Log that tables of a file for images of `given` pixels are resized to those of this network."""
    print_log(
        f'{family}: the position tables in the file, for images of {given[0]}x{given[1]} pixels, are resized to '
        f'{own[0]}x{own[1]}; table_size={as_option(given)} keeps them as they are',
        'current',
    )
