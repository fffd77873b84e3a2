"""The same as `hybrid-backbones export`."""

from hybrid_backbones.cli.export import main

if __name__ == '__main__':
    main()
