"""The same as `hybrid-backbones pretrain`."""

import sys

from hybrid_backbones.cli.pretrain import main

if __name__ == '__main__':
    sys.exit(main())
