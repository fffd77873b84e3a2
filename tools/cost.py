"""The same as `hybrid-backbones cost`."""

from hybrid_backbones.cli.cost import main

if __name__ == '__main__':
    main()
