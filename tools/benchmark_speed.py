"""The same as `hybrid-backbones speed`."""

from hybrid_backbones.cli.speed import main

if __name__ == '__main__':
    main()
