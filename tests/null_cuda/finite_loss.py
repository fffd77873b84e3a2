"""A checked backward pass on a CUDA device, as a program: prints the loss that was read."""

from types import SimpleNamespace

import torch
from mmengine.optim import OptimWrapper

from hybrid_backbones.engine.training_hooks import CheckFiniteLossHook, copy_to_host

loss = torch.tensor(3.5).cuda().requires_grad_()
wrapper = OptimWrapper(torch.optim.SGD([loss], 0.1))
CheckFiniteLossHook().before_train(SimpleNamespace(optim_wrapper=wrapper))
torch.cuda.set_sync_debug_mode('error')
wrapper.backward(loss)
print(copy_to_host(loss)())
