"""Optional dependencies, which are installed as extras: `pip install 'hybrid_backbones[EXTRA]'`."""

from importlib.util import find_spec


def require(extra: str, *modules: str) -> None:
    """Check that the modules of an extra can be imported.

    Raises:
        ModuleNotFoundError: Some are missing; which, and the command that installs them.
    """
    if missing := [module for module in modules if find_spec(module) is None]:
        raise ModuleNotFoundError(
            f"not installed: {', '.join(missing)}; run pip install 'hybrid_backbones[{extra}]'", name=missing[0]
        )
