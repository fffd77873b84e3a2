"""The command `hybrid-backbones`, also `python -m hybrid_backbones`: a module per subcommand, imported when called.

Only the standard library is imported here, so that `--help` answers at once and `doctor` runs where torch is missing.
"""

import argparse
import importlib
import sys

# Subcommand, its module beside this one, and what it does.
COMMANDS = {
    'train': ('.train', 'train a detector or segmentor'),
    'pretrain': ('.pretrain', 'train a classifier whose weights the others start from'),
    'test': ('.test', 'evaluate a checkpoint'),
    'swap': ('.swap', 'write a config that inherits from another, with a backbone of ours'),
    'check-data': ('.check_data', 'check the data of a config before training'),
    'new-config': ('.new_config', 'convert a folder of images and annotations, and write a config that trains on it'),
    'weights': ('.weights', 'list, fetch, check, convert and publish weights'),
    'cost': ('.cost', 'count parameters, multiply-adds and activations'),
    'speed': ('.speed', 'measure time and memory side by side'),
    'transfer': ('.transfer', 'train and measure many backbones alike, and report'),
    'export': ('.export', 'write a trained model as a file that runs without OpenMMLab'),
    'visualize': ('.visualize', 'draw predictions, features, receptive fields, attention and curves'),
    'demo': ('.demo', 'draw what a training run has learned, and print its metrics'),
    'launch': ('.launch', 'train in several processes, by torchrun'),
    'doctor': ('..doctor.__main__', 'show what works on this machine, and how to fix what does not'),
}


def main() -> int | str | None:
    """Run the subcommand that the command line names; its exit status or message."""
    from .. import __version__

    parser = argparse.ArgumentParser(
        prog='hybrid-backbones',
        description='Hybrid CNN/Transformer backbones for detection and segmentation in OpenMMLab',
        epilog='`hybrid-backbones COMMAND --help` lists the arguments of a command. Configs of this package are named '
        'hybrid_backbones::NAME.py',
    )
    parser.add_argument('--version', action='version', version=f'%(prog)s {__version__}')
    commands = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    for name, (_, purpose) in COMMANDS.items():
        commands.add_parser(name, help=purpose, add_help=False)
    command = parser.parse_args(sys.argv[1:2]).command
    sys.argv = [f'hybrid-backbones {command}', *sys.argv[2:]]  # from which its own parser takes the name to show
    return importlib.import_module(COMMANDS[command][0], __name__).main()
