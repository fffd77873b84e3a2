"""Networks of this package computed as their authors compute them, as a baseline for speed and memory."""

import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import botnet, ceit
from ..layers import transformer
from ..layers.attention import relative_logits
from ..layers.depthwise import Depthwise
from ..layers.linear import Pointwise


class _BoTNetAttention(botnet.Attention):
    """With the scores and bias of all pairs of positions in memory."""

    def _attend(self, qkv: Tensor, padding: None) -> Tensor:
        n, height, width, _ = qkv.shape
        q, k, v = qkv.reshape(n, height * width, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q = q * self.scale
        rows, columns = relative_logits(q, (height, width), *self._tables((height, width)))
        scores = q @ k.transpose(2, 3) + (rows[..., None] + columns[..., None, :]).flatten(3)
        return (scores.softmax(-1) @ v).transpose(1, 2).reshape(n, height, width, -1)


class _TokenAttention(transformer.Attention):
    """With the scores of all pairs of tokens in memory."""

    def _attend(self, of_queries: Tensor, of_keys: Tensor) -> Tensor:
        q, _, _ = of_queries.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        _, k, v = of_keys.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(2, 3)) * q.shape[-1] ** -0.5
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


class _LeFF(ceit.LeFF):
    """Tokens copied to a map (N, C, H, W), layers one by one, and copied back."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2).contiguous()
        x = F.gelu(self.bn1(self.conv1(x)))
        x = F.gelu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x)).permute(0, 2, 3, 1).contiguous()


_AS_PUBLISHED = {
    botnet.Attention: _BoTNetAttention,
    transformer.Attention: _TokenAttention,
    ceit.LeFF: _LeFF,
    Depthwise: nn.Conv2d,
    Pointwise: nn.Conv2d,
}
FAMILIES = ('botnet', 'ceit')


def as_published(network: nn.Module) -> nn.Module:
    """Change a network of one of `FAMILIES`, in place, to its authors' computation of the same function."""
    for module in network.modules():
        module.__class__ = _AS_PUBLISHED.get(type(module), type(module))
    return network
