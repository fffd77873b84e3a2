"""The same as `hybrid-backbones weights`."""

from hybrid_backbones.cli.weights import main

if __name__ == '__main__':
    main()
