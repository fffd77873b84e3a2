"""Arithmetic of sizes that stays right when they are symbols of a compiler or exporter."""


def ceil_div(length: int, part: int) -> int:
    """`length / part`, rounded up; exporters truncate `-(-length // part)`."""
    return (length + part - 1) // part


def to_multiple(length: int, part: int) -> int:
    """What `length` lacks to the next multiple of `part`, in a form from which compilers see that the sum is one.

    They get `-length % part` wrong (pytorch#197716).
    """
    return ceil_div(length, part) * part - length
