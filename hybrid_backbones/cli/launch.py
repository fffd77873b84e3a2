"""torchrun that says in one line what ended the job. All options are torchrun's; tools/dist_train.sh calls it.

hybrid-backbones launch --standalone --nproc_per_node 2 -m hybrid_backbones train CONFIG --launcher pytorch
"""

import signal
import socket
import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.run import parse_args, run


def check_port(port: int) -> None:
    """End with advice where another process listens on the port."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(('', port))
        except OSError as error:
            sys.exit(
                f'port {port} of this machine is in use ({error.strerror}), perhaps by another training: set PORT to a '
                'free one on every machine; with one machine leave PORT out, and a free one is found'
            )


def culprit(failures: dict[int, ProcessFailure]) -> tuple[int, ProcessFailure]:
    """Rank and failure of the process that ended the job: others fail within moments, for want of it."""
    killed = {rank: each for rank, each in failures.items() if each.exitcode < 0 and each.exitcode != -signal.SIGTERM}
    return min((killed or failures).items(), key=lambda item: item[1].timestamp)


def describe(rank: int, failure: ProcessFailure) -> str:
    """What ended the process of `rank`, and what to do."""
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        what = f'was killed by {name}' + (', as the system does when memory runs out' if name == 'SIGKILL' else '')
    else:
        # A process that could say why it failed left a dict for torchrun, else this is torchrun's own text.
        message = failure.message['message'] if isinstance(failure.message, dict) else failure.message
        what = f'failed: {message}'
    return (
        f'The job has ended: rank {rank} (process {failure.pid}) {what}\nThe other processes were stopped. '
        'Once the cause is fixed, the same command with --resume continues from the last checkpoint.'
    )


def main() -> None:
    args = parse_args(sys.argv[1:])
    if not args.standalone and not args.rdzv_endpoint and str(args.node_rank) == '0':
        check_port(args.master_port or 29500)
    try:
        run(args)
    except ChildFailedError as error:
        sys.exit(f'{error}\n{describe(*culprit(error.failures))}')
