"""The same as `hybrid-backbones check-data`."""

import sys

from hybrid_backbones.cli.check_data import main

if __name__ == '__main__':
    sys.exit(main())
