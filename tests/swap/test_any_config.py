"""Every installed config of mmdet and mmseg takes a backbone, or is refused with a reason that names the part."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from backbones.test_contract import tiny
from mmengine.config import Config
from test_configs import FOLDER

from hybrid_backbones.engine.config import read_config
from hybrid_backbones.engine.packaged_configs import packaged_file
from hybrid_backbones.swap import swap_backbone

PAGE = FOLDER.parent / 'docs' / 'any_config.md'
FAMILIES = ('conv2former_n', 'hornet_t', 'deit_t')
# Configs that differ in these settings alone are tried once.
UNIMPORTANT = {
    'num_classes',
    'train_cfg',
    'test_cfg',
    'data_preprocessor',
    'init_cfg',
    'pretrained',
    'depth',
    'tracker',
}
# Models whose backbone is a part of their head, or was trained together with a text encoder.
TIED = re.compile('reads internals of the backbone|is the text encoder|has no part called backbone')
# Of one config: package and folder, and why it was refused; '' where a backbone was put in.
Outcome = tuple[str, str]


def installed() -> Iterator[tuple[str, Path]]:
    """Name and file of every config but the `_base_` ones."""
    for package in ('mmdet', 'mmseg'):
        root = packaged_file(f'{package}::')
        for file in sorted(root.rglob('*.py')):
            if '_base_' not in file.parts:
                yield f'{package}::{file.relative_to(root)}', file


def structure(cfg: Config) -> str:
    """Equal for configs of which one speaks for all."""
    text = json.dumps([important(cfg.model), cfg.get('default_scope')], sort_keys=True, default=str)
    return hashlib.sha1(text.encode()).hexdigest()


def important(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: important(value) for key, value in node.items() if key not in UNIMPORTANT and 'loss' not in key}
    return [important(value) for value in node] if isinstance(node, (list, tuple)) else node


def refusal(cfg: Config, family: str) -> str:
    """Why the config does not take the backbone; '' if it does. Other errors than refusals are raised."""
    try:
        swap_backbone(cfg, family, **tiny(family))
    except (ValueError, FileNotFoundError) as error:
        return re.sub(r'^\S+ cannot be put into \S+: ', '', str(error))
    return ''


def survey() -> list[Outcome]:
    """All installed configs that have a model; three families in turn."""
    known: dict[str, str] = {}
    outcomes = []
    for name, file in installed():
        folder = name.rpartition('/')[0]
        try:
            cfg = read_config(file, import_custom_modules=False)
        except ValueError as error:
            outcomes.append((folder, f'cannot be read: {str(error).split(": ", 1)[1].split(",")[0]}'))
            continue
        if not cfg.get('model'):
            continue
        key = structure(cfg)
        if key not in known:
            known[key] = refusal(cfg, FAMILIES[len(known) % len(FAMILIES)])
        outcomes.append((folder, known[key]))
    return outcomes


def share(outcomes: list[Outcome]) -> float:
    """Of configs whose backbone is a part of its own, those that took one."""
    free = [reason for _, reason in outcomes if not TIED.search(reason)]
    return free.count('') / len(free)


def page(outcomes: list[Outcome]) -> str:
    """The table of docs/any_config.md."""
    taken = sum(not reason for _, reason in outcomes)
    tied = sum(bool(TIED.search(reason)) for _, reason in outcomes)
    lines = [
        '# Every installed config of mmdet and mmseg',
        '',
        f'Of {len(outcomes)} configs with a model, {taken} took a backbone ({taken / len(outcomes):.1%}); of the '
        f'{len(outcomes) - tied} whose backbone is neither a part of the head nor trained with a text encoder, '
        f'{share(outcomes):.1%}. None ended in',
        f'a traceback. Tried with {", ".join(FAMILIES)} in turn, once for configs of equal structure;',
        'written by `pytest --slow tests/swap/test_any_config.py`.',
        '',
        '| folder | configs | took a backbone | refused |',
        '|---|---|---|---|',
    ]
    for folder in sorted({folder for folder, _ in outcomes}):
        reasons = [reason for name, reason in outcomes if name == folder]
        refused = Counter(shortened(reason) for reason in reasons if reason)
        texts = '; '.join(f'{count}: {text}' for text, count in refused.items())
        lines.append(f'| `{folder}` | {len(reasons)} | {reasons.count("")} | {texts} |')
    return '\n'.join(lines) + '\n'


def shortened(reason: str) -> str:
    """One line without folders and without what depends on the backbone that was tried."""
    text = re.split(r'[;\n]| with these options', reason)[0].replace('|', '/')
    return ' '.join(re.sub(r'(?<![\w.])/(?:[^\s/"\']+/)+', '', text).split())[:160]


@pytest.mark.slow
def test_every_installed_config():
    outcomes = survey()
    PAGE.write_text(page(outcomes))
    assert len(outcomes) > 1400
    assert share(outcomes) >= 0.85


def test_page_is_kept():
    """The page has the folders that are installed."""
    folders = {name.rpartition('/')[0] for name, _ in installed()}
    listed = set(re.findall(r'^\| `(\S+)` \|', PAGE.read_text(), re.MULTILINE))
    assert listed <= folders and len(listed) > 0.9 * len(folders)


WRAPPERS = [
    'mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py',
    'mmdet::qdtrack/qdtrack_faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_test-mot17halfval.py',
    'mmdet::masktrack_rcnn/masktrack-rcnn_mask-rcnn_r50_fpn_8xb1-12e_youtubevis2019.py',
]


@pytest.mark.parametrize('path', WRAPPERS)
def test_the_detector_in_a_wrapper_is_changed(path):
    model = swap_backbone(path, 'conv2former_n', **tiny('conv2former_n')).model
    assert model.detector.backbone.type == 'Conv2Former'
    assert model.detector.neck.in_channels == [8, 16, 24, 32]
    preprocessor = model.data_preprocessor.get('data_preprocessor', model.data_preprocessor)
    assert preprocessor.bgr_to_rgb and preprocessor.std[0] == 58.395
    assert not (model.detector.get('init_cfg') or {}).get('checkpoint')


@pytest.mark.parametrize(
    ('path', 'key'),
    [
        ('mmdet::gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py', ''),
        ('mmdet::legacy_1.x/faster-rcnn_r50_fpn_1x_coco_v1.py', ''),
        ('mmdet::lad/lad_r50-paa-r101_fpn_2xb8_coco_1x.py', 'teacher_ckpt'),
        ('mmdet::ld/ld_r18-gflv1-r101_fpn_1x_coco.py', 'teacher_config'),
        ('mmdet::mask2former_vis/mask2former_r50_8xb2-8e_youtubevis2019.py', 'track_head'),
        ('mmdet::simple_copy_paste/mask-rcnn_r50_fpn_rpn-2conv_4conv1fc_syncbn-all_32xb2-ssj-90k_coco.py', ''),
    ],
)
def test_configs_that_ended_in_tracebacks(path, key):
    model = swap_backbone(path, 'conv2former_n', **tiny('conv2former_n')).model
    assert model.backbone.type == 'Conv2Former'
    assert not key or model[key]
