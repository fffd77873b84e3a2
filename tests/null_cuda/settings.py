"""Settings of a run on a CUDA device, as a program: prints what is set, and the warning of bf16, as JSON."""

import json
import sys

import torch

from hybrid_backbones.engine.cuda import lacks_bf16_attention, prepare_cuda

prepare_cuda(**json.loads(sys.argv[1]))
settings = torch.get_float32_matmul_precision(), torch.backends.cuda.cudnn_sdp_enabled()
print(json.dumps([*settings, lacks_bf16_attention()]))
