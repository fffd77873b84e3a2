"""What may fail or crash, run in a process of its own: `python -m hybrid_backbones.doctor.probes PROBE ...`.

A probe is `import:MODULE` or the name of a function below. Each prints its answer as one line of JSON when it is done,
so that the reader knows from the lines which probe ended the process.
"""

import importlib
import json
import os
import sys
import time
import traceback
import warnings
from typing import Any

Answer = dict[str, Any]


def run(probe: str) -> Answer:
    """Answer of a probe; `error`, and the line where it was raised, if it failed."""
    kind, _, module = probe.partition(':')
    try:
        if kind == 'import':
            importlib.import_module(module)
            return {}
        return globals()[kind]()
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        text = f'{type(error).__name__}: {str(error).strip() or "no message"}'
        return dict(error=text, where=f'{frame.filename}:{frame.lineno}')


def operators() -> Answer:
    """mmcv's version, and what the patch of its operators did, if it acted."""
    import mmcv

    from ..compat import applied

    importlib.import_module('mmcv.ops')
    return dict(version=mmcv.__version__, patched=applied.get('operators', ''))


def devices() -> Answer:
    """CPU and GPUs as torch sees them."""
    import torch

    from ..compat.amp import bf16_instructions

    gpus = [
        dict(
            name=device.name,
            gib=device.total_memory / 2**30,
            capability=[device.major, device.minor],
            error=_gpu_error(index),
        )
        for index, device in enumerate(map(torch.cuda.get_device_properties, range(torch.cuda.device_count())))
    ]
    return dict(
        bf16=bf16_instructions(),
        fp16_times=_seconds_of_product(torch.float16) / _seconds_of_product(torch.float32),
        gpus=gpus,
        available=torch.cuda.is_available(),
        built_for=torch.version.cuda,
    )


def _seconds_of_product(dtype: Any) -> float:
    """The least of a few products of 256 x 256 on one thread of the CPU."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    x, seconds = torch.ones(256, 256, dtype=dtype), []
    for _ in range(4):
        start = time.thread_time()
        x @ x
        seconds.append(time.thread_time() - start)
    torch.set_num_threads(threads)
    return min(seconds)


def _gpu_error(index: int) -> str:
    import torch

    try:
        (torch.ones(1, device=f'cuda:{index}') + 1).item()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return ''


def main_job() -> Answer:
    """Train Mask R-CNN for one step; the seconds that it took."""
    start = time.perf_counter()
    _train_one_step()
    return dict(seconds=time.perf_counter() - start)


def patches() -> Answer:
    """What `hybrid_backbones.compat` patched in this process, by the name of the patch."""
    from ..compat import applied

    return dict(applied)


def _train_one_step() -> None:
    import torch
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmdet.utils import register_all_modules
    from mmengine.config import Config
    from mmengine.structures import InstanceData

    register_all_modules()
    config = Config.fromstring("_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'", '.py').model
    config.backbone = dict(type='Conv2Former', arch='nano')
    config.neck.in_channels = [64, 128, 256, 512]
    config.train_cfg.rcnn.sampler.num = 16  # RoIs: enough to pass through every head
    model = MODELS.build(config).train()
    sample = DetDataSample(metainfo=dict(img_shape=(128, 128), ori_shape=(128, 128), scale_factor=(1.0, 1.0)))
    mask = torch.zeros(128, 128, dtype=torch.uint8)
    mask[16:80, 16:80] = 1
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[16.0, 16.0, 80.0, 80.0]]),
        labels=torch.tensor([0]),
        masks=BitmapMasks([mask.numpy()], 128, 128),
    )
    batch = model.data_preprocessor(dict(inputs=[torch.zeros(3, 128, 128)], data_samples=[sample]), training=True)
    loss, _ = model.parse_losses(model(**batch, mode='loss'))
    loss.backward()


def main() -> None:
    """Run the probes named on the command line; what libraries print is dropped."""
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    warnings.simplefilter('ignore')
    for probe in sys.argv[1:]:
        print(json.dumps(run(probe)), file=answers, flush=True)


if __name__ == '__main__':
    main()
