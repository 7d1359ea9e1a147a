"""Spiking attention: products of spikes before a synapse, neurons that no synapse drives."""

import torch
from architecture import EXAMPLES, STEPS, Architecture, T, reals
from spiking import TimeFirst, folded
from tape import Tape
from torch import Tensor, nn

HEADS, WIDTH = 2, 6


def dense(inputs: int = WIDTH, outputs: int = WIDTH) -> tuple[nn.Conv1d, nn.BatchNorm1d, TimeFirst]:
    return nn.Conv1d(inputs, outputs, 1, bias=False), nn.BatchNorm1d(outputs), TimeFirst()


class TokenAttention(nn.Module):
    """Modelled on QKFormer's token attention, [T, B, D, N]: a neuron on a token's summed queries keeps or drops it."""

    def __init__(self) -> None:
        super().__init__()
        self.q_conv, self.q_norm, self.q_lif = dense()
        self.k_conv, self.k_norm, self.k_lif = dense()
        self.token_lif = TimeFirst()
        self.proj_conv, self.proj_norm, self.proj_lif = dense()

    def masked(self, q: Tensor, k: Tensor, token: Tensor) -> Tensor:
        return (token * k.unflatten(2, (HEADS, -1))).flatten(2, 3)

    def counted(self, q: Tensor) -> Tensor:
        return q.unflatten(2, (HEADS, -1)).sum(dim=3, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        q = self.q_lif(folded(self.q_norm, folded(self.q_conv, x)))
        k = self.k_lif(folded(self.k_norm, folded(self.k_conv, x)))
        kept = self.masked(q, k, self.token_lif(self.counted(q)))
        return self.proj_lif(folded(self.proj_norm, folded(self.proj_conv, kept)))

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        q = tape.neuron(self.q_lif, folded(self.q_norm, tape.synapse(self.q_conv, x)), [self.q_conv])
        k = tape.neuron(self.k_lif, folded(self.k_norm, tape.synapse(self.k_conv, x)), [self.k_conv])
        kept = self.masked(q, k, tape.neuron(self.token_lif, self.counted(q)))
        current = folded(self.proj_norm, tape.synapse(self.proj_conv, kept))
        return tape.neuron(self.proj_lif, current, [self.proj_conv])


class TokenNetwork(nn.Module):
    """Embedding, attention, two dense layers, spikes added to spikes as in the SEW shortcut, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.lif = dense(3)
        self.attention = TokenAttention()
        self.up, self.up_norm, self.up_lif = dense(WIDTH, 8)
        self.down, self.down_norm, self.down_lif = dense(8, WIDTH)
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        x = tokens.expand(T, *tokens.shape)
        x = self.lif(folded(self.norm, folded(self.embed, x)))
        x = x + self.attention(x)
        s = self.up_lif(folded(self.up_norm, folded(self.up, x)))
        x = x + self.down_lif(folded(self.down_norm, folded(self.down, s)))
        return self.head(x.mean(3).mean(0))

    def stepwise(self, tape: Tape, tokens: Tensor) -> Tensor:
        x = tokens.expand(T, *tokens.shape)
        x = tape.neuron(self.lif, folded(self.norm, tape.synapse(self.embed, x)))
        x = x + self.attention.stepwise(tape, x)
        s = tape.neuron(self.up_lif, folded(self.up_norm, tape.synapse(self.up, x)), [self.up])
        x = x + tape.neuron(self.down_lif, folded(self.down_norm, tape.synapse(self.down, s)), [self.down])
        return self.head(x.mean(3).mean(0))


class SelfAttention(nn.Module):
    """Modelled on Spikformer's attention, [T, B, N, D]: Q K^T V, a product of spikes, drives a neuron."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lif = nn.Linear(3, WIDTH), TimeFirst()
        self.qkv, self.qkv_lif = nn.Linear(WIDTH, 3 * WIDTH), TimeFirst()
        self.attention_lif = TimeFirst()
        self.proj, self.proj_lif, self.head = nn.Linear(WIDTH, WIDTH), TimeFirst(), nn.Linear(WIDTH, 4)

    def attend(self, qkv: Tensor) -> Tensor:
        q, k, v = (part.unflatten(3, (HEADS, -1)).transpose(2, 3) for part in qkv.chunk(3, dim=3))
        return (0.25 * (q @ k.transpose(-2, -1)) @ v).transpose(2, 3).flatten(3)

    def forward(self, x: Tensor) -> Tensor:
        s = self.qkv_lif(self.qkv(self.lif(self.embed(x))))
        return self.head(self.proj_lif(self.proj(self.attention_lif(self.attend(s)))))

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s = tape.neuron(self.lif, tape.synapse(self.embed, x))
        s = tape.neuron(self.qkv_lif, tape.synapse(self.qkv, s), [self.qkv])
        s = tape.neuron(self.attention_lif, torch.stack([self.attend(step[None])[0] for step in s]))
        s = tape.neuron(self.proj_lif, tape.synapse(self.proj, s), [self.proj])
        return tape.synapse(self.head, s)


ARCHITECTURES = {
    "token-attention": Architecture(
        TokenNetwork,
        reals(EXAMPLES, 3, 5),
        (
            ("attention.q_conv", "attention.q_lif"),
            ("attention.k_conv", "attention.k_lif"),
            ("attention.proj_conv", "attention.proj_lif"),
            ("up", "up_lif"),
            ("down", "down_lif"),
        ),
        {"embed": "data", "head": "reaches no"},
    ),
    "self-attention": Architecture(
        SelfAttention,
        reals(STEPS, EXAMPLES, 5, 3),
        (("qkv", "qkv_lif"), ("proj", "proj_lif")),
        {"embed": "data", "head": "reaches no"},
    ),
}
