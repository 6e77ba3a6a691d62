"""Small models of Hugging Face transformers with random weights: run, and trained.

Each entry makes its model and its data from torch's seed, and returns a function that does one step and looks at it.
Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import transformers as hf

from benchmarks.step import Step

hf.logging.set_verbosity_error()

Inputs = dict[str, Any]

WORDS = 1000  # of each vocabulary; those below 3 are special
CLASSES = 10
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

ADAMW = partial(torch.optim.AdamW, lr=1e-4)
SGD = partial(torch.optim.SGD, lr=1e-3, momentum=0.9)


@dataclass(frozen=True)
class Entry:
    """A model, what it gets, what of its output is looked at, and what trains it."""

    kind: type[hf.PreTrainedModel]
    config: Mapping[str, Any]
    inputs: Callable[[], Inputs]
    look: Callable[[Any], object]
    optimizer: Callable[..., torch.optim.Optimizer] = ADAMW

    def model(self) -> hf.PreTrainedModel:
        """Return the model, with random weights."""
        config: Any = self.kind.config_class
        return self.kind(config(**self.config))


# Inputs.


def texts(rows: int = 8, length: int = 64) -> Inputs:
    """Return padded texts, of which each has a class."""
    words = torch.randint(3, WORDS, (rows, length))
    ends = torch.linspace(length // 2, length, rows).long()
    mask = (torch.arange(length) < ends[:, None]).long()
    return {
        "input_ids": words * mask,
        "attention_mask": mask,
        "labels": torch.randint(CLASSES, (rows,)),
    }


def continuations(rows: int = 4, length: int = 64) -> Inputs:
    """Return texts of which each word is to be told from those before it."""
    words = torch.randint(3, WORDS, (rows, length))
    return {"input_ids": words, "labels": words}


def translations(rows: int = 4, length: int = 48) -> Inputs:
    """Return texts, and those that they are to be turned into."""
    return {
        "input_ids": torch.randint(3, WORDS, (rows, length)),
        "labels": torch.randint(3, WORDS, (rows, length // 2)),
    }


def speech(rows: int = 4, frames: int = 128) -> Inputs:
    """Return spectrograms, and what was said."""
    return {
        "input_features": torch.randn(rows, 80, frames),
        "labels": torch.randint(3, WORDS, (rows, 16)),
    }


def images(rows: int = 8, size: int = 64) -> Inputs:
    """Return images, of which each has a class."""
    return {
        "pixel_values": torch.randn(rows, 3, size, size),
        "labels": torch.randint(CLASSES, (rows,)),
    }


def captions(rows: int = 8) -> Inputs:
    """Return images, and a text on each, whose end is the highest word, as CLIP has it."""
    words = torch.randint(3, WORDS - 1, (rows, 32))
    words[:, -1] = WORDS - 1
    pixels = torch.randn(rows, 3, 64, 64)
    return {"input_ids": words, "pixel_values": pixels, "return_loss": True}


# Looks.


def classes(output: Any) -> object:
    """Look at the class of each row, and at how sure the model is."""
    best = output.logits.softmax(-1).max(-1)
    return [best.indices.tolist(), best.values.mean().item()]


def words(output: Any) -> object:
    """Look at the word that comes next at each place."""
    return output.logits.argmax(-1).tolist()


def perplexity(output: Any) -> object:
    """Look at how surprised the model is."""
    return output.loss.exp().item()


def matches(output: Any) -> object:
    """Look at which text fits which image."""
    return output.logits_per_image.softmax(-1).tolist()


# Steps.


def inference(entry: Entry) -> Step:
    """Return a step that runs the model, and looks."""
    model, inputs = entry.model(), entry.inputs()
    with torch.no_grad():
        model.train()(**inputs)  # gives batch norms their averages
    model.eval()

    def step() -> object:
        with torch.no_grad():
            return entry.look(model(**inputs))

    return step


def training(entry: Entry) -> Step:
    """Return a step that trains the model, and looks at the loss."""
    model, inputs = entry.model().train(), entry.inputs()
    optimizer = entry.optimizer(model.parameters())

    def step() -> object:
        optimizer.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def generating(entry: Entry, count: int = 20) -> Step:
    """Return a step that continues each text by some words, greedily."""
    model = entry.model().eval()
    start = entry.inputs()["input_ids"][:, :16]
    mask = torch.ones_like(start)
    length = {"min_new_tokens": count, "max_new_tokens": count}

    def step() -> object:
        made: Any = model.generate(start, attention_mask=mask, do_sample=False, **length)
        return made.tolist()

    return step


# Models, by the names that their configurations give to the same things.

_BERT = {
    "vocab_size": WORDS,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "num_labels": CLASSES,
}
_LLAMA = _BERT | SPECIAL | {"num_key_value_heads": 2, "max_position_embeddings": 64}
_MIXTRAL = _LLAMA | {"num_local_experts": 4}
_MAMBA = SPECIAL | {"vocab_size": WORDS, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8}
_GPT2 = SPECIAL | {"vocab_size": WORDS, "n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 64}
_T5 = {
    "vocab_size": WORDS,
    "d_model": 128,
    "d_kv": 32,
    "d_ff": 256,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
_WHISPER = SPECIAL | {
    "vocab_size": WORDS,
    "d_model": 64,
    "max_source_positions": 64,
    "decoder_start_token_id": 1,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
}
_VIT = _BERT | {"image_size": 64, "patch_size": 8}
_CLIP = {
    "text_config": _BERT | SPECIAL | {"projection_dim": 64, "max_position_embeddings": 32},
    "vision_config": _VIT | {"projection_dim": 64},
    "projection_dim": 64,
}
_CONVNEXT = {"num_labels": CLASSES, "hidden_sizes": [32, 64, 96, 128], "depths": [2, 2, 2, 2]}
_RESNET = _CONVNEXT | {"embedding_size": 32}
_MOBILENET = {"num_labels": CLASSES, "depth_multiplier": 0.35}

ENTRIES: Mapping[str, Entry] = {
    "bert": Entry(hf.BertForSequenceClassification, _BERT, texts, classes),
    "gpt2": Entry(hf.GPT2LMHeadModel, _GPT2, continuations, perplexity),
    "llama": Entry(hf.LlamaForCausalLM, _LLAMA, continuations, words),
    "mixtral": Entry(hf.MixtralForCausalLM, _MIXTRAL, continuations, perplexity),
    "mamba": Entry(hf.MambaForCausalLM, _MAMBA, partial(continuations, length=32), words),
    "t5": Entry(hf.T5ForConditionalGeneration, _T5, translations, perplexity),
    "whisper": Entry(hf.WhisperForConditionalGeneration, _WHISPER, speech, words),
    "vit": Entry(hf.ViTForImageClassification, _VIT, images, classes),
    "resnet": Entry(hf.ResNetForImageClassification, _RESNET, images, classes, SGD),
    "mobilenet_v2": Entry(hf.MobileNetV2ForImageClassification, _MOBILENET, images, classes, SGD),
    "convnext": Entry(hf.ConvNextForImageClassification, _CONVNEXT, images, classes),
    "clip": Entry(hf.CLIPModel, _CLIP, captions, matches),
}

MODELS: Mapping[str, Callable[[], Step]] = {
    name: make
    for kind, entry in ENTRIES.items()
    for name, make in {
        kind: partial(inference, entry),
        f"{kind}, training": partial(training, entry),
    }.items()
} | {"gpt2, generating": partial(generating, ENTRIES["gpt2"])}
