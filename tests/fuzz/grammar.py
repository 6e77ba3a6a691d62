"""What random programs are made of: statements with gaps, by family.

In a statement ``x``, ``y`` and ``z`` are tensors that exist, ``w`` is a tensor that requires a gradient, ``N`` is a
number and ``M`` a small integer. A statement that is an expression is assigned to a new name or an old one.
"""

from __future__ import annotations

from pathlib import Path

# What a program begins with. R and C are the numbers of rows and columns that its tensors share.
MATRICES = """
torch.linspace(-1, 1, R * C).reshape(R, C)
torch.linspace(1, 2, R * C).reshape(R, C)
(torch.arange(R * C) % 7).float().reshape(R, C) / 4 - 0.5
torch.linspace(-2, 1, R * C, dtype=torch.float64).reshape(R, C)
torch.arange(R * C).reshape(R, C) % 5 - 2
torch.linspace(-1, 1, R * C).reshape(C, R).t()
torch.linspace(-1, 1, R * C, dtype=torch.bfloat16).reshape(R, C)
torch.rand(R, C)
torch.ones(R, C)
""".strip().split("\n")
OTHERS = """
torch.linspace(-2, 2, C)
torch.linspace(0, 1, R)[:, None]
torch.arange(C) - 1
torch.tensor(0.75)
torch.tensor(3)
torch.tensor([True, False] * C)[:C]
torch.linspace(-1, 1, 2 * R * C).reshape(2, R, C)
torch.linspace(-1, 1, R * C)
torch.linspace(-1, 1, C, dtype=torch.float16)
(torch.arange(R * C) % 3).int().reshape(R, C)
(torch.arange(R * C) % 250).to(torch.uint8).reshape(R, C)
torch.linspace(-1, 1, R * C * 2).reshape(R, C * 2)[:, ::2]
torch.linspace(0.5, 1, C).expand(R, C)
torch.complex(torch.linspace(-1, 1, C), torch.ones(C))
torch.zeros(R, C, dtype=torch.bool)
torch.randn(C)
torch.linspace(-1, 1, 3 * R * C).reshape(1, 3, R, C).contiguous(memory_format=torch.channels_last)
""".strip().split("\n")
SMALL = (
    (3, 4),
    (3, 4),
    (4, 4),
    (2, 3),
    (1, 5),
    (5, 1),
    (7, 9),
    (0, 3),
    (33, 17),
    (5, 24),
    (20, 20),
)
SHAPES = (*SMALL, *SMALL, (150, 260))  # the last is worth two threads

BINARY = """
x + y
x - y
x * y
x * y
x / y
torch.maximum(x, y)
torch.minimum(x, y)
torch.where(x > y, x, y)
torch.where(y > 0, x, N)
x > y
x == y
x <= y
torch.addcmul(x, y, y, value=N)
torch.addcdiv(x, y, y * y + 1, value=N)
torch.add(x, y, alpha=N)
torch.sub(x, y, alpha=N)
torch.lerp(x, y, 0.3)
torch.lerp(x, y, 0.7)
x // y
x % y
torch.fmod(x, y)
torch.atan2(x, y)
torch.hypot(x, y)
x.masked_fill(y > 0, N)
x.t().masked_fill(y.t() > 0, N)
x & y
x | y
x ^ y
torch.logical_and(x, y)
torch.pow(x.abs() + 0.5, y)
torch.cat([x, y])
torch.stack([x, y])
torch.cat([x, y], -1)
F.mse_loss(x, y)
x.type_as(y)
x.expand_as(y) * 2
torch.broadcast_tensors(x, y)[1] + 1
torch._foreach_add([x, y], N)[1]
torch._foreach_mul([x, y], [y, x])[0]
torch.dot(x.flatten(), x.flatten())
""".strip().split("\n")
UNARY = """
x + N
x * N
N - x
x / N
N / (x.abs() + 1)
x ** 2
x ** 3
x ** 0.5
x.tanh()
x.exp()
x.abs()
-x
x.sigmoid()
x.relu()
x.abs().sqrt()
x.clamp(-1, 1)
x.clamp(min=N)
x.clone()
x.double()
x.float()
x.long()
x.bfloat16()
x.half()
x.to(torch.int32)
x.to(torch.uint8)
x.bool()
x > N
x != N
x.contiguous()
torch.zeros_like(x) + N
torch.full_like(x, N)
torch.ones_like(x)
torch.empty_like(x).fill_(N)
x.new_zeros(3, 4)
x.sin()
x.cos()
x.round()
x.floor()
x.trunc()
x.sign()
x.erf()
(x.abs() + 1).log()
x.log1p()
x.expm1()
x.reciprocal()
x.rsqrt()
x.square()
x.isnan()
x.logical_not()
~x
F.gelu(x)
F.silu(x)
F.leaky_relu(x, 0.1)
F.elu(x)
F.softplus(x)
F.hardtanh(x)
F.layer_norm(x, x.shape[-1:])
F.threshold(x, 0.1, N)
torch.rand_like(x)
torch.randn_like(x) * 0.1
torch.bernoulli(x.sigmoid())
F.dropout(x, 0.5)
x.mul(N).add(N)
x.nan_to_num(0.5)
x.masked_fill(x > N, N)
x.mT.masked_fill(x.mT > 0, N)
torch.polar(x.abs(), x)
torch.view_as_real(torch.complex(x, x)).clone()
""".strip().split("\n")
_MORE_UNARY = """
acos acosh angle asin asinh atan atanh ceil cosh sinh tan deg2rad rad2deg digamma erfc erfinv exp2 frac i0 isinf isneginf
isposinf isfinite lgamma log10 log2 logit positive sgn signbit sinc
""".split()
_MORE_ACTIVATIONS = """
celu hardshrink hardsigmoid hardswish hardtanh logsigmoid mish relu6 selu softshrink softsign tanhshrink glu
""".split()
_MORE_BINARY = """
bitwise_left_shift bitwise_right_shift clamp_max clamp_min copysign fmax fmin gcd lcm ge ne heaviside logaddexp logaddexp2
logical_or logical_xor nextafter remainder rsub xlogy true_divide
""".split()
UNARY += [f"torch.{name}(x)" for name in _MORE_UNARY]
UNARY += [f"F.{name}(x)" for name in _MORE_ACTIVATIONS]
BINARY += [f"torch.{name}(x, y)" for name in _MORE_BINARY]
REDUCTIONS = """
x.sum()
x.sum(0)
x.sum(-1, keepdim=True)
x.mean(-1)
x.mean()
x.amax(0)
x.amin(-1, keepdim=True)
x.softmax(-1)
x.log_softmax(0)
x.cumsum(0)
x.sort(0)[0]
x.argmax(-1)
x.var()
x.std(0)
x.norm()
x.prod(-1)
x.any()
x.all(0)
x.logsumexp(-1)
x.max(0)[0]
x.median()
x.topk(1)[0]
x.count_nonzero()
x.argmin(0)
x.min()
x.cumprod(0)
x.logcumsumexp(0)
torch.var_mean(x, -1)[1]
x.mv(x[0])
torch.baddbmm(x.expand(2, -1, -1), x.expand(2, -1, -1), torch.eye(x.shape[-1]).expand(2, -1, -1))
F.group_norm(x[None], 1)
F.adaptive_avg_pool2d(x[None, None], 2)
F.interpolate(x[None, None], scale_factor=2)
F.interpolate(x[None, None], size=(4, 3), mode="bilinear")
x @ x.transpose(-1, 0)
x.t() @ x
x @ torch.ones(x.shape[-1], 2)
F.linear(x, torch.linspace(-1, 1, 3 * x.shape[-1]).reshape(3, -1), torch.ones(3))
torch.outer(x.flatten()[:5], x.flatten()[:3])
torch.addmm(x, x, torch.eye(x.shape[-1]))
torch.einsum("ij,kj->ik", x, x)
F.cross_entropy(x, torch.zeros(x.shape[0], dtype=torch.long))
F.conv1d(x[None], torch.ones(1, x.shape[0], 2) / 4)
F.avg_pool2d(x[None, None], 2)
F.batch_norm(x, None, None, training=True)
torch.bmm(x.expand(2, -1, -1), x.expand(2, -1, -1).transpose(1, 2))
""".strip().split("\n")
VIEWS = """
x[1:]
x[0]
x[-1]
x.t()
x.view(-1)
x.reshape(-1)
x[::2]
x[..., 1:]
x[..., ::2]
x.unsqueeze(0)
x.detach()
x.expand(3, -1)
x.diagonal()
x.transpose(0, -1)
x.squeeze()
x[..., -1]
x[:, None]
x.data
as_integers(x)
x.flatten()
x.unfold(0, 2, 1)
x.narrow(0, 1, 1)
x.permute(1, 0)
x.mT
x.chunk(2)[-1]
x.split(1)[0]
x.unbind(-1)[0]
x.as_strided((2, 2), (1, 1))
x.view_as(x)
x.swapaxes(0, 1)
x.tile(1)
x.reshape(x.shape[::-1])
torch.view_as_complex(x.reshape(-1)[:2].view(1, 2))
x.real
x.conj()
""".strip().split("\n")
SELECTIONS = """
x[x > 0]
x[[0, -1]]
x[torch.tensor([0, 0])]
x[None, ..., None] + 0
x.flip(0)
x.roll(1)
x.index_select(0, ZERO)
x.gather(0, torch.zeros_like(x, dtype=torch.long))
x.tril()
x.triu(1)
x.repeat(2, *[1] * (x.dim() - 1))
x.nonzero()
x.unique()
x.take(ZERO)
F.pad(x, (1, 2), value=N)
torch.nn.functional.one_hot(x.long().abs() % 3, 3)
F.embedding(x.long().abs() % 3, torch.linspace(-1, 1, 6).reshape(3, 2))
x.masked_select(x < N)
torch.cat([x, x[:1]]).cumsum(0)
""".strip().split("\n")
WRITES = """
x.add_(N)
x.mul_(N)
x.add_(y)
x.add_(y)
x.mul_(y)
x.sub_(y, alpha=N)
x.copy_(y)
x.copy_(y)
x.zero_()
x.fill_(N)
x.fill_(y.sum())
x.exp_()
x.relu_()
x.sin_()
x[0] = N
x[0] = y
x[1:] += y
x[..., 0] *= N
x[x > 0] = N
if x.numel() < MANY: x[..., 1:] = x[..., :-1]
if x.numel() < MANY: x[1:].add_(x[:-1])
if x.numel() < MANY: x[..., 1:].mul_(x[..., :-1])
x[:, ::2] = y[:, ::2]
x[::2] -= y[::2]
x.clamp_(-2, 2)
x.t_()
x.neg_()
x.div_(y)
x.masked_fill_(y > 0, N)
x[-1].copy_(x[0])
if x.numel() < MANY: x[:-1] = x[1:]
x += y
x -= N
x *= x
x.resize_(0)
x.resize_(min(x.numel(), 3))
x.uniform_()
x.normal_()
x.transpose_(0, -1)
x.squeeze_()
x.unsqueeze_(0)
x.set_(y)
x.index_fill_(0, ZERO, N)
x.index_add_(0, ZERO, y[:1])
x.scatter_(0, torch.zeros_like(x, dtype=torch.long), y)
x.addcdiv_(y, y, value=N)
x.addcmul_(y, y, value=N)
x.lerp_(y, 0.25)
x.requires_grad_(False)
x.tanh_()
x.sigmoid_()
x.cumsum_(0)
x.diagonal().add_(N)
x.view(-1)[1:].mul_(y.reshape(-1)[1:])
x.put_(ZERO, y.flatten()[:1])
x.data = y
x.data.add_(y)
x.detach().mul_(N)
x.swapaxes_(0, 1)
x.bernoulli_(0.5)
x.logical_not_()
x.round_()
torch.add(x, y, out=z)
torch.mul(x, N, out=z)
torch.exp(x, out=z)
torch.sum(x, 0, out=z)
torch.mm(x.clone(), x.t().clone(), out=z)
torch.where(x > 0, x, y, out=z)
torch.cat([x.clone(), y.clone()], out=z)
torch.clamp(x, -1, 1, out=z)
torch.add(x, y, out=z[0])
torch.gt(x, y, out=z)
torch._foreach_add_([x, z], [y, y])
torch._foreach_mul_([x, z], N)
torch._foreach_zero_([x])
F.relu(x, inplace=True)
F.dropout(x, 0.5, inplace=True)
""".strip().split("\n")
READS = """
log.append(x.sum().item())
log.append(x[:5].tolist())
log.append(str(x))
log.append(repr(x))
arrays.append(x.numpy())
arrays.append(x.numpy().copy())
arrays.append(numpy.from_dlpack(x))
log.append(bool((x > 0).any()))
log.append(float(x.mean()))
log.append(torch.equal(x, y))
log.append(torch.allclose(x, y, equal_nan=True))
arrays[-1][...] = N
arrays[-1] += 1
log.append(arrays[-1].sum())
log.append(x.flatten()[0].item() > 0)
in_thread(lambda: x.add_(1))
in_thread(lambda: log.append(x.tolist()))
in_thread(lambda: log.append(x + y))
log.append(x.data_ptr() == y.data_ptr())
log.append((x._version, x.shape, x.stride()))
log.append((x.is_contiguous(), x.storage_offset(), x.requires_grad))
log.append(copy.deepcopy(x))
log.append(copy.copy(x))
log.append(len(x))
log.append([r.clone() for r in x[:5]])
log.append(pickle.loads(pickle.dumps(x)))
log.append(x.untyped_storage().nbytes())
log.append(bytes(as_integers(x).untyped_storage()))
log.append(x.storage_offset())
log.append(numpy.asarray(x).mean())
log.append(x in [y])
log.append(hash(x) == hash(y))
log.append(f"{x.sum():.3f}")
log.append(x.nonzero().shape)
log.append(torch.stack([x, x]).max().item())
log.append(saved(x))
x.untyped_storage().fill_(0)
torch.from_numpy(x.numpy()).mul_(N)
assert x.sum() > N
""".strip().split("\n")
DROPS = """
del x
arrays.clear()
log.append(gc.collect() >= 0)
x = None
held = x; held = held * 2; del held
f"{(x + N) * 2 is None}"
""".strip().split("\n")
GRADIENTS = """
w = x.detach().clone().requires_grad_()
w = x.detach().float().clone().requires_grad_()
w = w * x
w = (w + x).tanh()
w = (w * N).sin() + w
w.sum().backward(retain_graph=True)
(w * w).mean().backward(retain_graph=True)
w.retain_grad()
log.append(w.grad)
w = w[1:]
w = w.clone(); w.mul_(2)
w = w.clone(); w[0] = N
log.append(w.grad_fn is None)
log.append(torch.autograd.grad((w * w).sum(), w, retain_graph=True)[0])
log.append(torch.autograd.grad((w ** 3).sum(), w, create_graph=True)[0])
w = w.softmax(-1)
w.data.mul_(0.5)
w = w.exp() / N
w = w @ w.t()
w = F.layer_norm(w, w.shape[-1:])
w = torch.where(w > 0, w, x)
w = Twice.apply(w)
w = checkpoint(torch.sin, w, use_reentrant=False)
w.register_hook(lambda g: g * N)
v = w.detach(); v.add_(1)
w.grad.zero_()
w.grad = None
w.grad.add_(N)
x = w.grad
with torch.no_grad(): w.sub_(w.grad, alpha=0.1)
with torch.no_grad(): w.add_(x)
with torch.no_grad(): w += N
w = w.relu().sum(-1, keepdim=True) + w
w = F.gelu(w) + F.silu(w)
w = F.elu(w) * F.softplus(w)
w = F.leaky_relu(w, 0.1) + F.hardtanh(w)
w = F.mish(w) - F.hardswish(w) + F.hardsigmoid(w)
w = F.log_softmax(w, -1)
w = w.sigmoid() * w.tanh()
w = F.huber_loss(w, x, reduction="none")
w = F.batch_norm(w, None, None, training=True)
w = F.conv1d(w[None], torch.ones(1, w.shape[0], 1) / 4)[0]
w = F.avg_pool2d(w[None], 2)[0]
w = F.glu(w.repeat(1, 2))
w = F.logsigmoid(w)
w = w.clamp(-1, 1) + w.abs()
w = w.std(-1, keepdim=True) + w
w = torch.cat([w, w * 2])
w = w.expand(2, *w.shape)
F.mse_loss(w, x).backward(retain_graph=True)
w.requires_grad_(False)
x.requires_grad_()
log.append([p.name() for p, _ in w.grad_fn.next_functions if p])
log.append(torch.func.grad(lambda t: (t * t).sum())(x))
log.append(torch.func.vmap(lambda t: t.sin() * N)(x))
log.append(torch.func.jvp(torch.tanh, (x,), (x,))[1])
""".strip().split("\n")
GRADIENTS += [
    f"log.append(torch.autograd.grad(({text.removeprefix('w = ')} * N).sum(), w)[0])"
    for text in GRADIENTS
    if text.startswith("w = F.")
]
COMPOUND = """
for i in range(3): x = x * 0.9 + y
for i in range(4): x.mul_(0.5).add_(i)
for i in (2, 3, 1): log.append((x ** i).sum().item())
for i in (0, 1, -1): log.append(x.cumsum(i).tolist())
for i in (0, -1): log.append((x + y).softmax(i).tolist())
for i in (1, 2, 0.5): log.append(F.elu(x, i).tolist())
for k in (x, x.double(), x.int()): log.append((k * N + 1).sum().item())
for i in range(5): x = (x + i).tanh()
for i in range(3): x[0] = x[0] * 0.5 + i
for i in range(3): x = torch.cat([x, x[:1]])
x[:-1].mul_(N); y = x[1:] * N
x[1:].add_(N); y = x[:-1] - x[1:]
v = x[1:] * N; x[:-1].add_(v); v.mul_(x[1:])
v = x[..., :-1]; x[..., 1:].mul_(N); y = v + N
v = x.view(-1)[::2]; x.mul_(N); y = v * 2; v.add_(N)
v = x.sin() + N; x.mul_(N)
v = (x + N).exp() * y; x.relu_(); y = v - x
x = x + N; v = x.tanh(); x.copy_(y); y = x * v
arrays.append(numpy.from_dlpack(x)); y = x * N; arrays[-1][...] = M
arrays.append(x.numpy()); x.add_(N); log.append(arrays[-1].sum())
v = x[1:]; x.mul_(N); in_thread(lambda: log.append(v + 1))
v = (x + N).view(-1); in_thread(lambda: log.append(v * 2))
v = x.view(-1); v.add_(y.sum()); in_thread(lambda: log.append(x * 2))
x, y = y, x
x = y
for r in x[:5]: r.add_(y.sum())
for r in x[:5]: log.append((r * 2).sum())
x = x + y if x.sum() > 0 else x - y
x = x * 2 if (x > N).any() else y.clone()
while 1 < x.abs().sum() < 1e6: x = x * 0.25
z = [x * i for i in range(3)][1]
if x.mean() > 0: x.sub_(1)
v = [x + N, x * y]; x = v[0] - v[1]
with torch.no_grad(): x.add_(y); y.mul_(N)
with torch.inference_mode(): log.append(x * 2 + y)
with torch.autocast("cpu", torch.bfloat16): z = (x @ x.t()) * 2
torch.set_default_dtype(torch.float64)
torch.set_default_dtype(torch.float32)
torch.set_num_threads(1)
torch.set_num_threads(2)
torch.manual_seed(M)
x = torch.full((3, 4), N)
x = torch.arange(M) + y[0]
x = torch.tensor([N, M]) * 2
""".strip().split("\n")
# Rows that are reduced, and what stands around them.
ROWS = """
z = x - x.amax(-1, keepdim=True); z = z.exp(); z = z / z.sum(-1, keepdim=True)
z = x - x.mean(-1, keepdim=True); z = z / torch.sqrt((z * z).mean(-1, keepdim=True) + 1e-5) * y + N
z = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5)
z = ((x[None] - y[:, None]) ** 2).sum(-1)
z = (x * y).sum(-1) + N
z = (x * y).sum(-1).sqrt(); log.append(z + x.amax(-1))
z = (x + N).sum(0)
z = (x * N).amax((-1, -2), keepdim=True) - x
v = (x + N).sum(-1, keepdim=True); x.sub_(v); v.mul_(N); z = x * v
v = x * y; z = v - v.amin(1, keepdim=True); v.add_(v.sum(1, keepdim=True))
v = (x.exp() * N).mean(-1, keepdim=True); z = v.tanh() + v; log.append(x > v)
v = x * N; z = v.sum(-1); v = v - z; z = z[..., None] + v
v = (x * y).mT; z = v - v.mean(-1, keepdim=True)
z = x - x.mean(0); z = z / torch.sqrt((z * z).mean(0) + 1e-5) * y[0]
z = x.exp(); z = z / z.sum(0, keepdim=True)
z = (x - y).mean(-2, keepdim=True) * x
z = torch.softmax(x * N, -1); log.append(z * y)
z = F.layer_norm(x + y, x.shape[-1:], y[0], x[0]); log.append(z * N)
z, u, v = torch.native_layer_norm(x * N, x.shape[-1:], None, None, 1e-5); z = z * v; u = u + N
z = (x - x.mean(0)) / x.std(0); log.append(x.var(0))
z = (x * N).var(-1, correction=N) + x.std(-1)
z = (x + y).log_softmax(1); z = z * z.exp()
z = F.softmax(x, -1).mT + 1
z = (x * N).logsumexp(-1, keepdim=True); z = x - z
z, u = (x * y).max(-1); log.append(u); v = (x - y).argmin(-1)
z = x.reshape(-1).unfold(0, 2, 1).std(-1); log.append(z * N)
z = F.mse_loss(x * N, y); log.append((x + y).mean() * N); z = x / (x * x).sum().sqrt()
z = (x > y).any(); log.append((x == x).all(-1)); v = (x > N).sum() + (y < x).sum(-1)
z = (x * N).repeat(300, 40); v = (z + 1).sum(); log.append(z.abs().amax() * v); u = (z > 0).sum(); z.add_(u)
z = (x * y).repeat(500, 30).mT; v = z - z.mean(); log.append((v * v).mean().sqrt()); u = torch.isnan(z).any() | (z > N).all()
log.append(torch.allclose(x * N, y)); z = (x - x.mean()).abs().amax()
z = F.cross_entropy(x * N, torch.arange(len(x)) % x.shape[1]); log.append(z)
z = F.silu(x) * y
z = torch.sigmoid(x) * torch.tanh(y) + F.softplus(x, 1.3)
z = torch.sigmoid(x * N); z = z * (1 - z) + F.mish(z)
x.sigmoid_(); z = x * y
z = (x.bfloat16() * N + y.bfloat16()).relu().float()
""".strip().split("\n")
# Families and how often a statement is taken from each.
FAMILIES = (
    (BINARY, 6),
    (UNARY, 5),
    (REDUCTIONS, 2),
    (ROWS, 3),
    (VIEWS, 5),
    (SELECTIONS, 1),
    (WRITES, 8),
    (READS, 2),
    (DROPS, 1),
    (GRADIENTS, 3),
    (COMPOUND, 3),
)
EXPRESSIONS = (BINARY, UNARY, REDUCTIONS, VIEWS, SELECTIONS)
NUMBERS = "2 -1 0.5 3.7 0 1 -0.0 1.5 True 0.1 7 -3 1e-3 0.25".split()

# What every program begins with.
PREAMBLE = Path(__file__).with_name("preamble.py").read_text()
