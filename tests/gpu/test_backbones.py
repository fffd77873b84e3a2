"""Backbones on a GPU against the CPU, which other tests compare with the authors' code."""

import copy

import pytest
import torch
import torch.distributed as dist
from backbones.test_contract import build, grads_of, loss_of, with_stable_rounding
from families import ONE_OF_EACH
from goldens import Golden
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hybrid_backbones import create_backbone
from hybrid_backbones.checkpoints import load_pretrained
from hybrid_backbones.layers import attention

# The smallest member of every family of which the authors' outputs are recorded.
GOLDENS = dict(
    botnet_50='botnet50_gist_k1_224',
    ceit_t='ceit_tiny_224',
    coatnet_0='coatnet_0_224',
    conv2former_n='conv2former_n_odd_150x203',
    convit_t='convit_tiny_224',
    cvt_13='cvt_13_odd_150x203',
    deit_t='deit_tiny_224',
    hornet_t='hornet_tiny_7x7_160x224',
    moat_0='moat_0_global_192x256',
    moganet_xt='moganet_xt_224x224',
    replknet_31b='replknet_31b_128x160',
    slak_t='slak_tiny_128x160',
    vitc_1gf='vitc_1gf_224',
)
# Largest difference of a map from fp32 on the CPU, relative to the norm of the map.
BOUNDS = {torch.float32: 1e-4, torch.float16: 0.01, torch.bfloat16: 0.05}
of_each = pytest.mark.parametrize('name', ONE_OF_EACH)


def autocast(dtype: torch.dtype) -> torch.autocast:
    return torch.autocast('cuda', dtype, enabled=dtype is not torch.float32)


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a.float().cpu() - b).norm() / b.norm()).item()


@pytest.mark.parametrize('name', GOLDENS)
def test_goldens(name, tmp_path):
    golden = Golden(GOLDENS[name])
    torch.save(golden.state_dict(), tmp_path / 'official.pth')
    network = create_backbone(name, out_norm=False).eval()
    load_pretrained(network, tmp_path / 'official.pth')
    with torch.inference_mode():
        expected = network(golden.image())
        network.cuda()
        for dtype, bound in BOUNDS.items():
            with autocast(dtype):
                maps = network(golden.image().cuda())
            assert all(difference(a, b) < bound for a, b in zip(maps, expected, strict=True)), dtype


@of_each
@pytest.mark.parametrize('training', [True, False], ids=['training', 'evaluation'])
@pytest.mark.parametrize('dtype', BOUNDS, ids=str)
def test_gradients_are_those_of_the_cpu(name, training, dtype):
    network = build(name, **with_stable_rounding(name)).train(training)
    image = torch.randn(2, 3, 75, 97)
    loss_of(network(image)).backward()
    expected = torch.cat([grad.flatten() for grad in grads_of(network).values()])
    network.zero_grad()
    network.cuda()
    with autocast(dtype):
        maps = network(image.cuda())
    sum((m.float() * torch.linspace(-1, 1, m.shape[1]).cuda()[:, None, None]).mean() for m in maps).backward()
    actual = torch.cat([grad.flatten() for grad in grads_of(network).values()])
    assert difference(actual, expected) < 5 * BOUNDS[dtype]


@of_each
def test_fused_inference_is_equal(name):
    network = build(name).eval().cuda()
    fused = copy.deepcopy(network).fuse()
    image = torch.randn(2, 3, 97, 131, device='cuda')
    with torch.inference_mode():
        torch.testing.assert_close(fused(image), network(image), rtol=1e-3, atol=1e-4)


@of_each
def test_the_host_does_not_wait(name):
    network = build(name).train().cuda()
    image = torch.randn(2, 3, 97, 131, device='cuda')
    loss_of_maps(network(image)).backward()  # the first pass chooses kernels
    torch.cuda.set_sync_debug_mode('error')
    try:
        loss_of_maps(network(image)).backward()
        with torch.inference_mode():
            network.eval()(image)
    finally:
        torch.cuda.set_sync_debug_mode('default')


def loss_of_maps(maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return sum(m.float().square().mean() for m in maps)


def peak_memory(network: nn.Module, height: int, width: int) -> int:
    """Bytes that a training step takes beyond the network and its gradients."""
    image = torch.randn(1, 3, height, width, device='cuda')
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    loss_of_maps(network(image)).backward()
    return torch.cuda.max_memory_allocated() - before


@of_each
def test_memory_is_linear_in_pixels(name, monkeypatch):
    monkeypatch.setattr(attention, '_PAIRS', 2**20)  # both sizes are above the limit
    network = build(name).train().cuda()
    peak_memory(network, 256, 256)  # gradients are made once
    small, large = peak_memory(network, 512, 512), peak_memory(network, 1024, 1024)
    assert large < 4.5 * small


@of_each
def test_amp_trains(name):
    network = build(name).train().cuda()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    scaler = torch.amp.GradScaler('cuda')
    image, losses = torch.randn(2, 3, 64, 64, device='cuda'), []
    for _ in range(8):
        with autocast(torch.float16):
            loss = loss_of_maps(network(image))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert all(parameter.isfinite().all() for parameter in network.parameters())
    assert losses[-1] < losses[0]


def train_in_process(rank: int, name: str, rendezvous: str) -> None:
    dist.init_process_group('nccl', init_method=f'file://{rendezvous}', rank=rank, world_size=2)
    torch.cuda.set_device(rank)
    torch.manual_seed(0)
    network = DistributedDataParallel(build(name).cuda().train(), device_ids=[rank])
    torch.manual_seed(rank)
    for _ in range(2):
        loss_of_maps(network(torch.randn(2, 3, 64, 64, device='cuda'))).backward()
    for parameter in network.parameters():
        mean = parameter.grad.clone()
        dist.all_reduce(mean)
        torch.testing.assert_close(mean / 2, parameter.grad)
    dist.destroy_process_group()


@of_each
def test_distributed_training_has_equal_gradients(name, tmp_path):
    if torch.cuda.device_count() < 2:
        pytest.skip('needs two GPUs')
    torch.multiprocessing.spawn(train_in_process, (name, str(tmp_path / 'rendezvous')), nprocs=2)
