"""Key layouts of ConvNeXt's and Swin's files by other publishers than timm, for `TimmPyramid`.

The authors' classifiers have names that timm converts itself; their detectors and segmentors have a norm on every map
besides. OpenMMLab's ConvNeXt has names of its own; a classifier there calls its final norm `norm3`, as a detector does
the norm of its last map. OpenMMLab's Swin differs in more than names: see `_timm_swin`.
"""

from ..checkpoints import KeyLayout

_OUTPUT_NORMS = (r'^norm(\d)\.', r'out_norms.\1.')
_CONVNEXT_OF_OPENMMLAB = (
    (r'^downsample_layers\.0\.', 'trunk.stem.'),
    (r'^downsample_layers\.(\d)\.', r'trunk.stages.\1.downsample.'),
    (r'^stages\.(\d)\.(\d+)\.', r'trunk.stages.\1.blocks.\2.'),
    (r'\.depthwise_conv\.', '.conv_dw.'),
    (r'\.pointwise_conv([12])\.', r'.mlp.fc\1.'),
)

LAYOUTS = {
    'mmpretrain': KeyLayout(
        marker=r'\.depthwise_conv\.',
        absent=r'^norm[012]\.',
        renames=(*_CONVNEXT_OF_OPENMMLAB, (r'^norm3\.', 'head.norm.'), (r'^openmmlab_head\.fc\.', 'head.fc.')),
    ),
    'openmmlab_dense': KeyLayout(marker=r'\.depthwise_conv\.', renames=(*_CONVNEXT_OF_OPENMMLAB, _OUTPUT_NORMS)),
    'authors_dense': KeyLayout(marker=r'^norm[0123]\.', absent=r'\.w_msa\.|^norm4\.', renames=(_OUTPUT_NORMS,)),
}
