"""Sweeps over many backbones, the rows that they write, reports on them, and published figures.

Needs the extra `transfer`; otherwise importing it raises an error with the command that installs it.
"""

from .._extras import require

require('transfer', 'filelock', 'jinja2', 'pandas', 'plotly', 'pydantic', 'scipy', 'yaml')
