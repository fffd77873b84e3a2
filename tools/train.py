"""The same as `hybrid-backbones train`."""

from hybrid_backbones.cli.train import main

if __name__ == '__main__':
    main()
