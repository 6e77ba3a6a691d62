"""Rules 1, 3 and 5 for whole programs: models of every kind, trained and then used, as people write them."""

import io
import math
import random

import pytest
import torch
import torch.nn.functional as F
from sameness import program
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class SmallCNN(nn.Module):
    """Convolutions, batch norm, pooling and dropout."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3, stride=2),
            nn.LeakyReLU(0.1),
            nn.Dropout2d(0.25),
        )
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


@program(times=2, recorded=True)
def test_a_cnn_is_trained_in_epochs_and_evaluated():
    images, labels = torch.rand(20, 1, 8, 8), torch.randint(3, (20,))
    loader = DataLoader(TensorDataset(images, labels), batch_size=8, shuffle=True)
    model = SmallCNN()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
    for epoch in range(3):
        model.train()
        running, correct = 0.0, 0
        for x, y in loader:
            optimizer.zero_grad()
            logits = model(x)
            loss = F.cross_entropy(logits, y)
            loss.backward()
            optimizer.step()
            running += loss.item() * len(x)
            correct += (logits.argmax(1) == y).sum().item()
        scheduler.step()
        model.eval()
        with torch.no_grad():
            accuracy = (model(images).argmax(1) == labels).float().mean()
        print(
            f"epoch {epoch}: {running / 20:.9f} {correct} {accuracy:.4f} {scheduler.get_last_lr()}"
        )
    return model, optimizer


class CharacterModel(nn.Module):
    """Embedding, recurrent layers, head tied to the embedding."""

    def __init__(self, kind):
        super().__init__()
        self.embedding = nn.Embedding(9, 6)
        self.layers = getattr(nn, kind)(6, 6, num_layers=2, dropout=0.3, batch_first=True)
        self.head = nn.Linear(6, 9)
        self.head.weight = self.embedding.weight

    def forward(self, tokens, state=None):
        x, state = self.layers(self.embedding(tokens), state)
        return self.head(x), state


def detached(state):
    """Return a recurrent state without its history."""
    return tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()


@program(times=2, recorded=True)
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_truncated_backpropagation_carries_the_state_over(kind):
    text = torch.randint(9, (2, 25))
    model = CharacterModel(kind)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    state, losses = None, []
    for start in range(0, 20, 5):
        x, y = text[:, start : start + 5], text[:, start + 1 : start + 6]
        if state is not None:
            state = detached(state)
        logits, state = model(x, state)
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
    model.eval()
    token, sampled = text[:1, :1], []
    state = None
    with torch.no_grad():
        for _ in range(8):
            logits, state = model(token, state)
            token = torch.multinomial((logits[:, -1] / 0.7).softmax(-1), 1)
            sampled.append(token.item())
    return model, losses, state, sampled


@program(times=2, recorded=True)
def test_packed_sequences_of_different_lengths():
    lengths = torch.tensor([5, 2, 4])
    x = nn.utils.rnn.pad_sequence([torch.randn(n, 3) * 2 for n in lengths], batch_first=True)
    layer, head = nn.LSTM(3, 4, bidirectional=True, batch_first=True), nn.Linear(8, 1)
    optimizer = torch.optim.RMSprop([*layer.parameters(), *head.parameters()], 0.01)
    losses = []
    for _ in range(3):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, True, enforce_sorted=False)
        unpacked, sizes = nn.utils.rnn.pad_packed_sequence(layer(packed)[0], batch_first=True)
        mask = torch.arange(unpacked.shape[1])[None] < sizes[:, None]
        loss = (head(unpacked).squeeze(-1) * mask).pow(2).sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return layer, head, losses


@program(times=2, recorded=True)
def test_a_transformer_with_dropout_and_masks():
    torch.manual_seed(5)
    model = nn.Transformer(8, 2, 1, 1, 16, dropout=0.2, batch_first=True)
    source, target = nn.Embedding(7, 8, padding_idx=0), nn.Embedding(7, 8)
    parameters = [*model.parameters(), *source.parameters(), *target.parameters()]
    optimizer = torch.optim.AdamW(parameters, 0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: min((n + 1) ** -0.5, (n + 1) / 4)
    )
    s = torch.tensor([[1, 2, 3, 0], [4, 5, 0, 0]])
    t = torch.tensor([[1, 3, 5], [1, 6, 2]])
    causal = nn.Transformer.generate_square_subsequent_mask(3)
    losses = []
    for _ in range(4):
        y = model(
            source(s), target(t), tgt_mask=causal, src_key_padding_mask=s == 0, tgt_is_causal=True
        )
        loss = F.cross_entropy(
            (y @ target.weight.t()).transpose(1, 2), t.roll(-1, 1), label_smoothing=0.1
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        y = model(source(s), target(t), tgt_mask=causal)
    return model, source, target, optimizer, losses, y


@program(times=2, recorded=True)
def test_a_variational_autoencoder():
    encoder = nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 4))
    decoder = nn.Sequential(nn.Linear(2, 8), nn.Softplus(), nn.Linear(8, 6))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 0.01)
    data = torch.rand(16, 6)
    history = []
    for step in range(6):
        mean, log_variance = encoder(data).chunk(2, -1)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        likeness = F.binary_cross_entropy_with_logits(decoder(z), data, reduction="sum")
        divergence = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
        loss = (likeness + min(1.0, step / 4) * divergence) / len(data)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append((likeness.item(), divergence.item()))
    normal = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    again = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0, 1)).sum()
    with torch.no_grad():
        samples = torch.bernoulli(decoder(torch.randn(3, 2)).sigmoid())
    return encoder, decoder, history, again, samples


@program(times=2, recorded=True)
def test_a_gan_with_two_optimizers():
    generator = nn.Sequential(
        nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2), nn.Tanh()
    )
    judge = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(8, 1))
    first = torch.optim.Adam(generator.parameters(), 2e-3, betas=(0.5, 0.999))
    second = torch.optim.Adam(judge.parameters(), 2e-3, betas=(0.5, 0.999))
    criterion, history = nn.BCEWithLogitsLoss(), []
    ones, zeros = torch.ones(8, 1), torch.zeros(8, 1)
    for _ in range(5):
        real = torch.randn(8, 2) * 0.5 + 1
        fake = generator(torch.randn(8, 3))
        second.zero_grad(set_to_none=True)
        loss = criterion(judge(real), ones * 0.9) + criterion(judge(fake.detach()), zeros)
        loss.backward()
        second.step()
        for parameter in judge.parameters():
            parameter.requires_grad_(False)
        first.zero_grad(set_to_none=True)
        fooled = criterion(judge(fake), ones)
        fooled.backward()
        first.step()
        for parameter in judge.parameters():
            parameter.requires_grad_(True)
        history.append(f"{loss:.8f} {fooled:.8f}")
    return generator, judge, first, second, history


class CachedAttention(nn.Module):
    """Causal attention with a growing cache, and rotary positions."""

    def __init__(self, width, heads):
        super().__init__()
        self.qkv, self.out, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, x, cache=None):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        start = 0 if cache is None else cache[0].shape[2]
        q, k = rotated(q, start), rotated(k, start)
        if cache is not None:
            k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=cache is None)
        return self.out(y.transpose(1, 2).flatten(2)), (k, v)


def rotated(x, start):
    """Turn pairs of features by an angle that grows with the position."""
    half = x.shape[-1] // 2
    frequencies = 1.0 / 100 ** (torch.arange(half) / half)
    angles = torch.outer(torch.arange(start, start + x.shape[2]), frequencies)
    turned = torch.view_as_complex(x.unflatten(-1, (half, 2)).contiguous()) * torch.polar(
        torch.ones_like(angles), angles
    )
    return torch.view_as_real(turned).flatten(-2)


class TinyGPT(nn.Module):
    """Two blocks of cached attention."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(13, 8)
        self.attention = nn.ModuleList(CachedAttention(8, 2) for _ in range(2))
        self.norms = nn.ModuleList(nn.RMSNorm(8) for _ in range(3))
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(approximate="tanh"), nn.Linear(16, 8))

    def forward(self, tokens, caches=None):
        x, grown = self.embedding(tokens), []
        for layer, attend in enumerate(self.attention):
            y, cache = attend(self.norms[layer](x), caches and caches[layer])
            x = x + y
            x = x + self.mlp(self.norms[layer](x))
            grown.append(cache)
        return self.norms[2](x) @ self.embedding.weight.t(), grown


def sampled(logits, temperature, top_k, top_p):
    """Draw tokens from the most likely ones."""
    logits = logits / temperature
    if top_k:
        kth = torch.topk(logits, top_k).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -math.inf)
    if top_p:
        ordered, places = logits.sort(descending=True)
        outside = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1) > top_p
        logits = logits.masked_fill(outside.scatter(1, places, outside), -math.inf)
    return torch.multinomial(logits.softmax(-1), 1)


@program(times=2, recorded=True)
@pytest.mark.parametrize("mode", ["no_grad", "inference_mode"])
@pytest.mark.parametrize("choice", [(1.0, 0, 0), (0.8, 5, 0), (1.3, 0, 0.9)])
def test_generation_with_a_growing_cache_and_sampling(choice, mode):
    model = TinyGPT().eval()
    text = []
    with getattr(torch, mode)():
        tokens = torch.tensor([[1, 5, 3], [2, 0, 7]])
        logits, caches = model(tokens)
        for _ in range(12):
            token = sampled(logits[:, -1], *choice)
            tokens = torch.cat([tokens, token], 1)
            text.append(token[0].item())
            if text[-1] == 4:
                break
            logits, caches = model(token, caches)
        whole, _ = model(tokens)
    return tokens, text, caches, logits, whole


@program(times=2, recorded=True)
def test_generation_into_a_cache_that_was_set_aside():
    width, length = 4, 10
    keys, values = torch.zeros(length, width), torch.zeros(length, width)
    project = nn.Linear(width, 3 * width)
    x, tokens = torch.randn(1, width), []
    with torch.no_grad():
        for position in range(length):
            q, k, v = project(x).chunk(3, -1)
            keys[position], values[position] = k[0], v[0]
            scores = keys[: position + 1] @ q[0] / width**0.5
            x = (scores.softmax(0) @ values[: position + 1])[None] + x
            tokens.append(int(x.argmax()))
    return keys, values, x, tokens


@program(times=2, recorded=True)
def test_beam_search():
    model = TinyGPT().eval()
    with torch.no_grad():
        beams, scores = torch.tensor([[1]]), torch.zeros(1)
        caches = None
        for _ in range(6):
            logits, caches = model(beams[:, -1:], caches)
            total = (scores[:, None] + logits[:, -1].log_softmax(-1)).flatten()
            scores, chosen = total.topk(3)
            parents, tokens = chosen // 13, chosen % 13
            beams = torch.cat([beams[parents], tokens[:, None]], 1)
            caches = [(k[parents], v[parents]) for k, v in caches]
            print(beams.tolist(), scores)
    return beams, scores, caches


@program(times=2, recorded=True)
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_embedding_bags_are_trained(mode):
    bag, head = nn.EmbeddingBag(10, 4, mode=mode), nn.Linear(4, 2)
    optimizer = torch.optim.Adagrad([*bag.parameters(), *head.parameters()], 0.1)
    words = torch.tensor([1, 2, 4, 5, 4, 3, 2, 9])
    offsets, labels = torch.tensor([0, 3, 3, 6]), torch.tensor([0, 1, 1, 0])
    losses = []
    for _ in range(4):
        loss = F.cross_entropy(head(bag(words, offsets)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return bag, head, losses, F.embedding_bag(words.view(2, 4), bag.weight * 2, mode=mode)


@program(times=2, recorded=True)
def test_sparse_embedding_bags_are_trained():
    bag = nn.EmbeddingBag(10, 4, mode="sum", sparse=True, padding_idx=2)
    optimizer = torch.optim.SGD(bag.parameters(), 0.1)
    for _ in range(3):
        weights = torch.rand(2, 4)
        bag(torch.tensor([[1, 2, 4, 4], [3, 2, 9, 1]]), per_sample_weights=weights).pow(
            2
        ).sum().backward()
        kept = bag.weight.grad.coalesce()
        optimizer.step()
        optimizer.zero_grad()
    return bag, kept


class Actor(nn.Module):
    """Policy and value."""

    def __init__(self):
        super().__init__()
        self.body, self.policy, self.value = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(8, 1)

    def forward(self, x):
        x = torch.tanh(self.body(x))
        return torch.distributions.Categorical(logits=self.policy(x)), self.value(x).squeeze(-1)


@program(times=2, recorded=True)
def test_an_actor_and_its_critic_play():
    model = Actor()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    returns = []
    for _ in range(3):
        state, steps = torch.zeros(4), []
        for _ in range(8):
            choice, value = model(state)
            action = choice.sample()
            state = (state + (action.item() - 0.5) * torch.randn(4)).clamp(-2, 2)
            reward = -state.abs().sum().item()
            steps.append((choice.log_prob(action), value, reward, choice.entropy()))
        total, loss = 0.0, torch.zeros(())
        for log_probability, value, reward, entropy in reversed(steps):
            total = reward + 0.9 * total
            advantage = total - value
            loss = loss - log_probability * advantage.detach() + advantage**2 - 0.01 * entropy
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        returns.append(total)
    return model, returns, loss


@program(times=2, recorded=True)
def test_deep_q_learning_with_a_replay_buffer_and_a_target():
    online, target = (nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)) for _ in range(2))
    target.load_state_dict(online.state_dict())
    optimizer, memory = torch.optim.Adam(online.parameters(), 0.01), []
    state = torch.randn(3)
    for _ in range(16):
        with torch.no_grad():
            greedy = int(online(state).argmax())
        action = greedy if random.random() > 0.3 else random.randrange(2)
        after = state * 0.9 + (action - 0.5) + 0.1 * torch.randn(3)
        memory.append((state, action, float(-after.norm()), after))
        state = after
        if len(memory) >= 4:
            states, actions, rewards, nexts = zip(*random.sample(memory, 4), strict=True)
            states, nexts = torch.stack(states), torch.stack(nexts)
            taken = online(states).gather(1, torch.tensor(actions)[:, None]).squeeze(1)
            with torch.no_grad():
                wanted = torch.tensor(rewards) + 0.9 * target(nexts).amax(1)
            loss = F.smooth_l1_loss(taken, wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
                slow.data.mul_(0.95).add_(fast.data, alpha=0.05)
    return online, target, loss, state


@program(times=2, recorded=True)
def test_a_diffusion_model_is_trained_and_sampled():
    model = nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Linear(16, 2))
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    betas = torch.linspace(1e-3, 0.3, 8)
    alphas = torch.cumprod(1 - betas, 0)
    data = torch.randn(16, 2) * 0.2 + torch.tensor([1.0, -1.0])
    for _ in range(5):
        t = torch.randint(8, (16,))
        noise = torch.randn_like(data)
        noisy = alphas[t].sqrt()[:, None] * data + (1 - alphas[t]).sqrt()[:, None] * noise
        loss = F.mse_loss(model(torch.cat([noisy, t[:, None] / 8], 1)), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = torch.randn(5, 2)
    with torch.inference_mode():
        for t in reversed(range(8)):
            predicted = model(torch.cat([x, torch.full((5, 1), t / 8)], 1))
            x = (x - betas[t] / (1 - alphas[t]).sqrt() * predicted) / (1 - betas[t]).sqrt()
            if t:
                x = x + betas[t].sqrt() * torch.randn_like(x)
    return model, loss, x.clone()


@program(times=2, recorded=True)
def test_a_whole_program_in_inference_mode():
    with torch.inference_mode():
        model = SmallCNN().eval()
        images = torch.rand(6, 1, 8, 8)
        model.head.weight.mul_(2)
        probabilities = model(images).softmax(1)
        best = probabilities.max(1)
        images[0].zero_()
        images += torch.rand(1) * 0.1
        again = model(images)
        stream = io.BytesIO()
        torch.save({"again": again, "model": model.state_dict()}, stream)
        stream.seek(0)
        loaded = torch.load(stream)
        print(best.values, again.argmax(1).tolist())
    return model, probabilities, tuple(best), again, loaded, images
