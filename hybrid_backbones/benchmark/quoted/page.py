"""`docs/results/published.md`, from the records of `quoted.json`."""

from .table import Quoted, quoted

FRAMEWORKS = {
    'mask_rcnn': 'Mask R-CNN',
    'cascade_mask_rcnn': 'Cascade Mask R-CNN',
    'upernet': 'UperNet',
    'fcos': 'FCOS',
    'deeplabv3+': 'DeepLabv3+',
}
DATASETS = {'coco': 'COCO', 'ade20k': 'ADE20K', 'cityscapes': 'Cityscapes'}
METRICS = {'box_AP': 'box AP', 'mask_AP': 'mask AP', 'mIoU': 'mIoU, single scale', 'mIoU_ms': 'mIoU, multi-scale'}
DAGGER = '†'

HEAD = """# Published results

Figures that others published, **quoted** so that measured ones can be held against them. None was measured here: those
are in [README.md](README.md), with the difference to the published value where there is one. This page is written by
`python -m hybrid_backbones.benchmark.quoted.page` from `hybrid_backbones/benchmark/quoted/table.json`.

- A number is as its source states it, unless the note beside it says how it was come by. Those with a dagger (†) are
  **unverified**: no text that states them was read, they are recollections of the paper. Do not cite them.
- Sources that are a copy of, or notes on, a paper by somebody else say so.
- Names in code font are those of `create_backbone`; rows without one are networks that are not here. "By" names who
  trained a network, where those are not its authors.
- COCO is val2017 with one scale and no test-time augmentation, ADE20K and Cityscapes are the validation sets.
- Parameters and multiply-adds (MACs, which papers call FLOPs) are of the whole detector or segmentor, the latter for an
  image of the height and width beside them.
"""

TAIL = """## What is not comparable

- Recipe before backbone: ResNet-50 in Cascade Mask R-CNN gains two points of box AP (44.3 to 46.3) from mmdetection's
  recipe to Swin's. Swin, ConvNeXt, HorNet, SLaK and Conv2Former share theirs but for learning rates, layer-wise decay
  and drop path; RepLKNet has no layer-wise decay.
- MOAT's authors train detectors and segmentors by a recipe and at sizes of their own: its figures stand alone.
- BoTNet's authors train for up to 72 epochs by a recipe of their own, with other image sizes and scale jitter: none of
  its rows is a `3x` one.
- Single-scale mIoU is 0.1 to 2 below multi-scale mIoU of the same network. Of Conv2Former, and of DeiT-S by Swin's
  authors, only the latter is known; of SLaK and MOAT only the former.
- Segmentors pretrained on ImageNet-22k or MegData73M are mostly trained with crops of 640 pixels, others with 512, and
  their MACs are counted at a larger image.
- RepLKNet segments with batches of 128 images for 40k iterations: twice as many images as the others in 160k.
- Swin's README and paper differ by 0.1 to 0.3. ConvNeXt's and Swin's figures differ by up to 0.6 from those that
  mmdetection and mmsegmentation reached with the same recipe: take a smaller difference of your own for noise.

## Without published figures

- CvT, CeiT, ConViT, CoAtNet and ViT_C: no figures on COCO or ADE20K are published.
- Conv2Former-N and the isotropic Conv2Former: none on COCO or ADE20K. Conv2Former-S on ADE20K: no text that states it
  was read, so that it is left out.
- BoTNet: none on ADE20K. DeiT: none by its authors, those above are others'. HorNet, RepLKNet and SLaK: none in their
  repositories for Mask R-CNN with the recipes here, nor for SLaK-S and SLaK-B on COCO.
- MaxViT and EfficientNet, which are here as baselines of timm: not collected.
"""


def page() -> str:
    """The whole page, as Markdown."""
    groups: dict[tuple[str, str], list[Quoted]] = {}
    for dataset in DATASETS:
        for framework in FRAMEWORKS:
            if rows := quoted(framework=framework, dataset=dataset):
                groups[framework, dataset] = rows
    if sum(map(len, groups.values())) != len(quoted()):
        raise ValueError('quoted.json has frameworks or datasets that quoted_page.py has no title for: add them there')
    return '\n'.join([HEAD, *(_section(*key, rows) for key, rows in groups.items()), TAIL])


def _section(framework: str, dataset: str, rows: list[Quoted]) -> str:
    metrics = [name for name in METRICS if any(name in row.metrics for row in rows)]
    head = ['backbone', 'pretraining', 'schedule', *(f'{METRICS[name]} (quoted)' for name in metrics)]
    head += ['parameters, M', 'MACs, G', 'source']
    lines = [head, ['---'] * len(head), *(_cells(row, metrics) for row in sorted(rows, key=_order))]
    table = '\n'.join(f'| {" | ".join(line)} |' for line in lines)
    return f'## {DATASETS[dataset]}, {FRAMEWORKS[framework]}\n\n{table}\n'


def _order(row: Quoted) -> tuple:
    """ImageNet-1k first, as the other names sort behind it; those whose parameters are not stated last."""
    return row.pretraining, row.parameters_m or float('inf'), row.label, row.schedule, row.by


def _cells(row: Quoted, metrics: list[str]) -> list[str]:
    name = f'{row.label}, `{row.backbone}`' if row.backbone else row.label
    macs = f'{row.macs_g} at {row.size[0]}x{row.size[1]}' if row.macs_g else ''
    return [
        f'{name}, by {row.by}' if row.by else name,
        row.pretraining,
        f'{row.schedule}, crop {row.crop}' if row.crop else row.schedule,
        *(_number(row, metric) for metric in metrics),
        str(row.parameters_m or ''),
        macs,
        f'{row.source}. {row.note[0].upper()}{row.note[1:]}.' if row.note else row.source,
    ]


def _number(row: Quoted, metric: str) -> str:
    if metric not in row.metrics:
        return ''
    return f'{row.metrics[metric]}{"" if row.is_verified(metric) else DAGGER}'


if __name__ == '__main__':
    print(page(), end='')
