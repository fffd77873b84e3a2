"""The same as `hybrid-backbones launch`."""

from hybrid_backbones.cli.launch import main

if __name__ == '__main__':
    main()
