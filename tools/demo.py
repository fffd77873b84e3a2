"""The same as `hybrid-backbones demo`."""

from hybrid_backbones.cli.demo import main

if __name__ == '__main__':
    main()
