"""Networks that are called step by step, with a neuron written here."""

import pytest
import torch
from torch import Tensor, nn
import tracegrad as tg
from reference import Tape
from functools import partial


@partial(tg.register_neuron, step=True, state="v")
class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.v = None

    def forward(self, z):
        v = 0 if self.v is None else self.v
        u = 0.9 * v + z
        fires = (u.detach() >= 0.5).to(u)
        s = fires + (u - u.detach()) * ((u.detach() - 0.5).abs() <= 0.5)
        self.v = u - 0.5 * s
        return s


class Net(nn.Module):
    def __init__(self, make=Cell):
        super().__init__()
        self.stem, self.n0 = nn.Conv2d(2, 4, 3, padding=1), make()
        self.c1, self.n1 = nn.Conv2d(4, 4, 3, padding=1), make()
        self.c2, self.n2 = nn.Conv2d(4, 6, 3, stride=2), make()
        self.head = nn.Linear(6, 3)

    def step(self, x):
        s = self.n0(self.stem(x))
        s = self.n1(self.c1(s))
        s = self.n2(self.c2(s))
        return self.head(s.mean((2, 3)))

    def forward(self, xs):
        for m in self.modules():
            if isinstance(m, Cell):
                m.v = None
        return torch.stack([self.step(x) for x in xs])


class Multi(Net):
    def __init__(self):
        super().__init__(tg.LIF)

    def forward(self, x):
        f = lambda l, x: l(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        s = self.n0(f(self.stem, x))
        s = self.n1(f(self.c1, s))
        s = self.n2(f(self.c2, s))
        return self.head(s.mean((3, 4)))


@pytest.mark.parametrize("time", ["per_step", "mean", "final"])
def test_same(time):
    torch.manual_seed(0)
    a = Net().double()
    b = Multi().double()
    b.load_state_dict(a.state_dict())
    x = torch.randn(4, 2, 2, 8, 8).double()
    out = []
    for m in (a, b):
        at = tg.attach(m, x, time=time, alpha=0.5)
        print(at)
        w = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(1)).double()
        for _ in range(2):
            m.zero_grad()
            (m(x) * w).sum().backward()
        out.append({n: p.grad for n, p in m.named_parameters()})
    for n in out[0]:
        torch.testing.assert_close(out[0][n], out[1][n], rtol=1e-10, atol=1e-12)
