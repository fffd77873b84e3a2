"""OpenMMLab on current PyTorch and NumPy, without a compiler."""


def install() -> None:
    """Mend what this machine needs; does nothing where nothing is broken."""
