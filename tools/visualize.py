"""The same as `hybrid-backbones visualize`."""

from hybrid_backbones.cli.visualize import main

if __name__ == '__main__':
    main()
