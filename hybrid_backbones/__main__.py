"""`python -m hybrid_backbones`, the same as `hybrid-backbones`."""

import sys

from .cli import main

if __name__ == '__main__':
    sys.exit(main())
