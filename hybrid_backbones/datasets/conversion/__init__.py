"""Folders as annotation tools export them, converted to the layouts that our configs read.

Readers of our own: datumaro needs pandas < 3 and brings opencv-python-headless beside opencv-python, supervision reads
neither CVAT's XML nor label maps, and pylabel brings Jupyter's widgets.
"""

from .convert import LAYOUTS, Converted, converted, read_folder
from .errors import LayoutError

__all__ = ['LAYOUTS', 'Converted', 'LayoutError', 'converted', 'read_folder']
