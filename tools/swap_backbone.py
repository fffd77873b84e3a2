"""The same as `hybrid-backbones swap`."""

from hybrid_backbones.cli.swap import main

if __name__ == '__main__':
    main()
