"""The embedded dataset, checks of data, and what pipelines need beyond OpenMMLab's. Importing registers it."""

from . import transforms

__all__ = ['transforms']
