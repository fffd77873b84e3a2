"""Folders as annotation tools export them, converted to the layouts that our configs read.

Readers of our own: datumaro replaces OpenCV and pandas by other versions, supervision turns polygons into bitmaps and
reads neither CVAT's XML nor label maps, and pylabel needs Jupyter; none says what it leaves out.
"""

from .convert import LAYOUTS, Converted, converted, read_folder
from .errors import LayoutError

__all__ = ['LAYOUTS', 'Converted', 'LayoutError', 'converted', 'read_folder']
