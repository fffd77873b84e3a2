"""The same as `hybrid-backbones new-config`."""

from hybrid_backbones.cli.new_config import main

if __name__ == '__main__':
    main()
