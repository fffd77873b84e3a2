"""Networks of ours computed as their authors do, to measure what is gained: the same functions, laid out in full."""

import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import botnet, ceit
from ..layers import transformer
from ..layers.attention import relative_logits


class _BoTNetAttention(botnet.Attention):
    """Scores and bias of all pairs of positions in memory."""

    def _attend(self, qkv: Tensor, padding: None) -> Tensor:
        n, height, width, _ = qkv.shape
        q, k, v = qkv.reshape(n, height * width, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q = q * self.scale
        rows, columns = relative_logits(q, (height, width), *self._tables((height, width)))
        scores = q @ k.transpose(2, 3) + (rows[..., None] + columns[..., None, :]).flatten(3)
        return (scores.softmax(-1) @ v).transpose(1, 2).reshape(n, height, width, -1)


class _TokenAttention(transformer.Attention):
    """Scores of all pairs of tokens in memory."""

    def _attend(self, of_queries: Tensor, of_keys: Tensor) -> Tensor:
        q, _, _ = of_queries.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        _, k, v = of_keys.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(2, 3)) * q.shape[-1] ** -0.5
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


class _LeFF(ceit.LeFF):
    """Tokens turned into a map (N, C, H, W), its layers one by one, and turned back."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2).contiguous()
        x = F.gelu(self.bn1(self.conv1(x)))
        x = F.gelu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x)).permute(0, 2, 3, 1).contiguous()


_PLAIN = {botnet.Attention: _BoTNetAttention, transformer.Attention: _TokenAttention, ceit.LeFF: _LeFF}
FAMILIES = ('botnet', 'ceit')


def lay_out_in_full(network: nn.Module) -> nn.Module:
    """Change a network of one of `FAMILIES`, in place, to the plain computation of the same function."""
    for module in network.modules():
        module.__class__ = _PLAIN.get(type(module), type(module))
    return network
