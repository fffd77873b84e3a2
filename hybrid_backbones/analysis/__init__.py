"""What a detector or segmentor gets wrong: `tools/test.py --analyze DIR`.

Needs pandas, of the extra `transfer`; otherwise importing it raises an error with the command that installs it.
"""

from .._extras import require

require('transfer', 'pandas')
