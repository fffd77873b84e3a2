"""Settings of a run on a CUDA device, as a program: prints `[precision of fp32 products, cuDNN's attention]`."""

import json
import sys

import torch

from hybrid_backbones.engine.cuda import prepare_cuda

prepare_cuda(**json.loads(sys.argv[1]))
print(json.dumps([torch.get_float32_matmul_precision(), torch.backends.cuda.cudnn_sdp_enabled()]))
