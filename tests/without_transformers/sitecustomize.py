"""What a Python that finds this folder executes at its start: transformers is not installed, as for most users."""

import sys

sys.modules['transformers'] = None
