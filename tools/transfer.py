"""The same as `hybrid-backbones transfer`."""

import sys

from hybrid_backbones.cli.transfer import main

if __name__ == '__main__':
    sys.exit(main())
