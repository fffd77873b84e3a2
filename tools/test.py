"""The same as `hybrid-backbones test`."""

from hybrid_backbones.cli.test import main

if __name__ == '__main__':
    main()
