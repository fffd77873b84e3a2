"""Synthetic rows of results, random with a fixed seed, for tests of reports."""

import random
from typing import Any

from hybrid_backbones.benchmark.rows import Row, complete

# name, parameters in M, MACs in G, score minus that of ResNet-50
BACKBONES = (
    ('timm_resnet_50', 44.2, 260, 0.0),
    ('timm_convnext_t', 48.1, 262, 5.2),
    ('timm_swin_t', 47.8, 267, 4.6),
    ('timm_swin_s', 69.1, 359, 6.6),
    ('timm_efficientnet_b0', 22.0, 150, -1.2),
    ('conv2former_n', 33.0, 215, 4.3),
    ('conv2former_t', 45.0, 253, 6.3),
    ('conv2former_s', 68.0, 352, 7.4),
    ('cvt_13', 38.9, 290, 3.9),
    ('cvt_21', 51.0, 370, 5.0),
    ('coatnet_0', 43.7, 275, 4.9),
    ('botnet_50', 39.0, 280, 2.1),
    ('hornet_t', 42.0, 258, 5.7),
    ('slak_t', 67.0, 300, 5.4),
    ('moat_0', 46.0, 285, 6.0),
    ('ceit_s', 42.5, 330, 1.5),
)
SETTINGS = (
    ('mask-rcnn', 'coco', '1x', 'mask_AP', 36.0),
    ('cascade-mask-rcnn', 'coco', '3x', 'mask_AP', 39.0),
    ('upernet', 'ade20k', '160k', 'mIoU', 41.0),
)
ENVIRONMENT = dict(
    versions=dict(torch='2.9.0', mmdet='3.3.0', mmcv='2.1.0'),
    operators='hybrid_backbones.compat',
    device='Example GPU',
    precision='bf16',
    threads=8,
)


def run_row(backbone: str = 'cvt_13', setting: tuple = SETTINGS[0], score: float | None = 40.0, **changes: Any) -> Row:
    """A complete row of a run; `changes` go to its identity if that has the key, else to the row."""
    framework, dataset, schedule, metric, _ = setting
    row = dict(
        record='run',
        origin='measured',
        state='finished',
        reason=None,
        time='2025-06-01T12:00:00Z',
        seconds=7200.0,
        identity=dict(
            backbone=backbone,
            options={},
            framework=framework,
            dataset=dataset,
            schedule=schedule,
            tier='full',
            seed=0,
            frozen=False,
            weights_sha256='ab' * 32,
            config_sha256='cd' * 32,
            commit='0123abc',
        ),
        environment=ENVIRONMENT,
        weights=dict(file=f'{backbone}.pth', loaded=1.0),
        metrics={} if score is None else _metrics(metric, score),
    )
    return _with_changes(row, changes)


def profile_row(backbone: str = 'cvt_13', side: int = 512, **changes: Any) -> Row:
    """A complete row of a profile at a square size."""
    row = dict(
        record='profile',
        origin='measured',
        state='finished',
        reason=None,
        time='2025-06-01T12:00:00Z',
        seconds=30.0,
        identity=dict(
            backbone=backbone,
            options={},
            framework=None,
            config_sha256=None,
            size=[side, side],
            batch_size=1,
            precision='fp32',
            commit='0123abc',
        ),
        environment=ENVIRONMENT,
    )
    return _with_changes(row, changes)


def many_rows(settings: int = 3, seeds: int = 2) -> list[Row]:
    """Every backbone in every setting, some frozen, quoted, failed or killed, and profiles of six at five sizes."""
    chance = random.Random(0)
    rows = []
    for setting in SETTINGS[:settings]:
        for name, parameters, macs, above in BACKBONES:
            score = setting[-1] + above + chance.gauss(0, 0.5)
            for seed in range(seeds):
                rows.append(_measured(name, setting, score + chance.gauss(0, 0.15), parameters, macs, chance, seed))
    for name, parameters, macs, above in BACKBONES[:8]:
        score = SETTINGS[0][-1] + 0.6 * above - 6 + chance.gauss(0, 0.5)
        rows.append(_measured(name, SETTINGS[0], score, parameters, macs, chance, 0, frozen=True))
    rows += [
        run_row('pvt_s', score=40.4, origin='quoted', weights_sha256=None, weights=None),
        run_row('focalnet_t', score=42.4, origin='converted'),
        run_row('vitc_4gf', score=None, state='failed', reason='CUDA out of memory: tried to allocate 2.1 GiB'),
        run_row('coatnet_1', score=None, state='killed', reason='signal 15 at iteration 51200'),
    ]
    for name, parameters, macs, _ in BACKBONES[1:12:2]:
        rows += [_profile(name, side, parameters, macs, chance) for side in (224, 384, 512, 768, 1024)]
    return rows


def cost(parameters: float, macs: float, side: int = 800) -> dict[str, Any]:
    """A cost of parameters in M and MACs in G."""
    n = int(macs * 1e9)
    return dict(size=[side, side], parameters=int(parameters * 1e6), macs=n, textbook_macs=n, activations=n // 500)


def speed(seconds: float, side: int = 800) -> dict[str, Any]:
    """Speed of a batch of one."""
    return dict(
        size=[side, side],
        batch_size=1,
        median_s=seconds,
        p10_s=seconds * 0.97,
        p90_s=seconds * 1.08,
        images_per_s=1 / seconds,
        peak_fraction=0.3,
    )


def _measured(
    name: str,
    setting: tuple,
    score: float,
    parameters: float,
    macs: float,
    chance: random.Random,
    seed: int,
    **changes,
) -> Row:
    quoted = {setting[3]: round(score + chance.gauss(0.3, 0.4), 1)}
    source = dict(source='the paper, table 4', trust='paper', schedule=setting[2])
    published = dict(metrics=quoted, **source, difference={k: score - v for k, v in quoted.items()})
    return run_row(
        name,
        setting,
        score,
        seed=seed,
        cost=cost(parameters, macs),
        backbone_cost=cost(parameters - 20, macs * 0.4),
        speed=speed(macs / 6000 * chance.uniform(0.8, 1.4)),
        memory=dict(
            inference_mib=macs * 4 * chance.uniform(0.9, 1.2), training_mib=macs * 30 * chance.uniform(0.9, 1.2)
        ),
        curves=_curves(setting[3], score, chance),
        published=None if changes or seed else published,
        **changes,
    )


def _profile(name: str, side: int, parameters: float, macs: float, chance: random.Random) -> Row:
    grown = macs * (side / 800) ** (2.5 if name.startswith('cvt') else 2) * 0.4
    return profile_row(
        name,
        side,
        cost=cost(parameters - 20, grown, side),
        speed=speed(grown / 5000 * chance.uniform(0.9, 1.1), side),
        memory=dict(inference_mib=60 + grown * 4, training_mib=100 + grown * 30),
    )


def _curves(metric: str, score: float, chance: random.Random) -> dict[str, list[list[float]]]:
    losses = [[i, 0.4 + 2 / (1 + i / 2000) + chance.gauss(0, 0.03)] for i in range(1000, 88000, 2000)]
    return {'loss': losses, metric: [[epoch * 7330, score * (1 - 0.6**epoch)] for epoch in range(1, 13)]}


def _metrics(metric: str, score: float) -> dict[str, float]:
    return {'mask_AP': score, 'box_AP': score + 4} if metric == 'mask_AP' else {metric: score}


def _with_changes(row: dict[str, Any], changes: dict[str, Any]) -> Row:
    identity = {key: value for key, value in changes.items() if key in row['identity']}
    others = {key: value for key, value in changes.items() if key not in identity}
    return complete({**row, **others, 'identity': {**row['identity'], **identity}})
