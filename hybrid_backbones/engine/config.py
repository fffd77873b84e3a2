"""From a config file and the options of the command line to the config that runs."""

import os
import re
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config

from ..datasets.roots import set_data_root
from .checkpoint import latest_checkpoint
from .packaged_configs import PREFIX, locate, name_of, packaged_file
from .safeguards import add_safeguards, complete_safeguards, type_name

# By the names of `--amp`.
DTYPES = {'bf16': 'bfloat16', 'fp16': 'float16'}
# Where launchers say how many processes there are.
_WORLD_SIZES = {'none': '', 'pytorch': 'WORLD_SIZE', 'slurm': 'SLURM_NTASKS', 'mpi': 'OMPI_COMM_WORLD_SIZE'}


def read_config(path: str | Path, import_custom_modules: bool = True) -> Config:
    """Read a config file, or one of a package by name: `hybrid_backbones::upernet_cvt_13_ade20k.py`.

    Raises:
        FileNotFoundError: No such config.
        ValueError: It cannot be read; the message names the file, its own or one that it inherits from, and the line.
    """
    path = locate(path)
    packaged = '::' in path
    if not (packaged_file(path) if packaged else Path(path)).is_file():
        raise FileNotFoundError(f'no config {path}; those of this package are named {PREFIX}NAME.py')
    try:
        if packaged:
            return _read_of_package(str(path), import_custom_modules)
        return _with_names(Config.fromfile(path, import_custom_modules=import_custom_modules))
    except Exception as error:
        file, line = _place(error, Path(path))
        what = error.msg if isinstance(error, SyntaxError) else error  # str(error) would name a temporary file
        at_line = f', line {line}' if line else ''
        raise ValueError(f'cannot read the config {file}{at_line}: {type(error).__name__}: {what}') from error


def _with_names(cfg: Config) -> Config:
    """A config in pure Python with the names of its classes, `mmdet.datasets.CocoDataset`, in their places.

    Nothing else can be done with the classes: MMEngine cannot print a config that holds some.
    """
    if not hasattr(cfg, '_imported_names'):
        return cfg
    return Config(cfg.to_dict(), cfg_text=cfg.text, filename=cfg.filename)


def base_of_package(path: str) -> str:
    """`package::name`, as MMEngine takes it for a base: its pattern is one of letters, digits and underscores.

    `mmdet::gn+ws/...` and `mmdet::legacy_1.x/...` do not match it; by a detour over another folder they do.
    """
    package, _, name = path.partition('::')
    return path if path.startswith(PREFIX) or re.match(r'\w*/\w', name) else f'{package}::_base_/../{name}'


def _read_of_package(path: str, import_custom_modules: bool) -> Config:
    with tempfile.TemporaryDirectory() as folder:
        # MMEngine knows `package::` in bases only.
        file = Path(folder) / f'{Path(path).stem}.py'
        file.write_text(f'_base_ = {base_of_package(path)!r}\n')
        cfg = Config.fromfile(file, import_custom_modules=import_custom_modules)
    return Config(cfg.to_dict(), cfg_text=cfg.text, filename=path)


def _place(error: Exception, path: Path) -> tuple[Path, int | None]:
    """File, the config `path` or one of its bases, and line that an error of `Config.fromfile` comes from."""
    # MMEngine parses a copy in a temporary folder; the functions that do it hold the name of the original.
    calls = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_name == '_file2dict']
    file = Path(calls[-1].f_locals['filename']) if calls else path
    steps = [step.lineno for step in traceback.extract_tb(error.__traceback__) if Path(step.filename) == file]
    return file, steps[-1] if steps else getattr(error, 'lineno', None)


def load_config(
    path: str | Path,
    work_dir: str | None = None,
    data_root: str | None = None,
    options: dict | None = None,
    launcher: str = 'none',
    change: Callable[[Config], Config] | None = None,
) -> Config:
    """Read a config of mmdet, mmseg or ours, and add the safeguards of :mod:`hybrid_backbones.engine.safeguards`.

    Args:
        path: Config file.
        work_dir: Folder for logs and checkpoints; else the config's, else `work_dirs/NAME_OF_THE_CONFIG`.
        data_root: Folder of the data, in place of the config's.
        options: Dotted keys and values over those of the file, as `--cfg-options` gives them.
        launcher: How the processes of a distributed run were started.
        change: Applied to what the file says, before safeguards and `options`.

    Raises:
        FileNotFoundError: No such config.
        ValueError: It cannot be read; the message names the file, its own or one that it inherits from, and the line.
    """
    # `change` imports what the changed config still needs.
    cfg = read_config(path, import_custom_modules=change is None)
    if change is not None:
        cfg = change(cfg)
    add_safeguards(cfg)
    if options:
        cfg.merge_from_dict(options)
    cfg.launcher = launcher
    complete_safeguards(cfg)
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(Path('work_dirs') / name_of(path))
    if cfg.get('embedded_data') == 'shapes':
        from ..datasets.shapes import ensure_shapes

        data_root = str(ensure_shapes(data_root))
    if data_root is not None:
        set_data_root(cfg, data_root)
    return cfg


def use_amp(cfg: Config, precision: str) -> None:
    """Train in mixed precision, or not.

    Args:
        cfg: The config to change.
        precision: 'fp16', with loss scaling, 'bf16', which needs none, or 'fp32', whatever the config says.

    Raises:
        ValueError: Another precision; or the optimizer wrapper is neither MMEngine's plain one nor its one for that.
    """
    if precision not in (*DTYPES, 'fp32'):
        raise ValueError(f'--amp {precision}: expected one of auto, {", ".join(DTYPES)}')
    kind = type_name(cfg.optim_wrapper) or 'OptimWrapper'
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ValueError(f'--amp needs optim_wrapper.type OptimWrapper or AmpOptimWrapper, this config has {kind}')
    if precision == 'fp32':
        cfg.optim_wrapper.type = 'OptimWrapper'
        for option in ('dtype', 'loss_scale'):
            cfg.optim_wrapper.pop(option, None)
        return
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.dtype = DTYPES[precision]
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if precision == 'bf16':  # it has the exponents of fp32; a scaler would only skip steps at the beginning
        cfg.optim_wrapper.loss_scale = dict(enabled=False)


def use_total_batch(cfg: Config, total: int) -> None:
    """Make each iteration train on `total` images over all processes, however many there are.

    Raises:
        ValueError: The processes cannot share them evenly.
    """
    processes = int(os.environ.get(_WORLD_SIZES[cfg.launcher], 1))
    if total <= 0 or total % processes:
        nearest = max(1, round(total / processes)) * processes
        raise ValueError(
            f'--total-batch {total} cannot be shared evenly by {processes} processes, and uneven shares would weigh '
            f'images differently: give a multiple of {processes}, such as {nearest}, or start another number of them'
        )
    cfg.train_dataloader.batch_size = total // processes


def use_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate by the ratio of this run's batch size to the one that it was chosen for."""
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise ValueError(
            '--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the config: the batch size, over all '
            'GPUs, that its learning rate was chosen for'
        )
    cfg.auto_scale_lr.enable = True


def use_resume(cfg: Config, resume: str) -> str:
    """Resume from the checkpoint file `resume`, or with `'auto'` from the work directory's latest intact one.

    Returns:
        What was decided, in words.
    """
    if resume != 'auto':
        if not Path(resume).is_file():
            raise FileNotFoundError(f'--resume {resume}: no such checkpoint')
        found = resume
    else:
        found = latest_checkpoint(cfg.work_dir)
    cfg.resume = found is not None
    if found is None:
        return f'nothing to resume in {cfg.work_dir}: starting from the beginning'
    cfg.load_from = str(found)
    return f'resuming from {found}'


def check_work_dir(work_dir: str) -> None:
    """Create the work directory and try to write into it, before any work is done.

    Raises:
        PermissionError: It cannot be created or written to.
    """
    folder = Path(work_dir).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f'.write_test_{os.getpid()}'
        probe.write_text('')
        probe.unlink()
    except OSError as error:
        raise PermissionError(
            f'cannot write to the work directory {folder} ({error.strerror}); choose another with --work-dir'
        ) from error
