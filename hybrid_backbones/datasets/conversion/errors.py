"""The error of a folder that cannot be converted, and lists in messages."""


class LayoutError(ValueError):
    """The folder cannot be read; what was found, what is known, and what to do."""


def shortened(items: list, count: int = 3) -> str:
    """The first few of a list, and how many there are."""
    shown = ', '.join(map(str, items[:count]))
    return shown if len(items) <= count else f'{shown}, ... ({len(items)} in all)'
