"""An operation that makes the host wait for a CUDA device, as a program: prints the error."""

import torch

number = torch.zeros(1, device='cuda')
torch.cuda.set_sync_debug_mode('error')
try:
    number.item()
except RuntimeError as error:
    print(error)
