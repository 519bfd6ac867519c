"""CLIP tokenizer and text encoder: encoding of prompts, and a small fresh pair for presets that work offline."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from videogen.stages.text.config import TextConfig

_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
_END_OF_WORD = "</w>"
_WORD_SCALE = 50.0


def build_tokenizer(config: TextConfig) -> CLIPTokenizer:
    """Return a CLIP tokenizer in which each of `config.words` is one token and other words are spelled out."""
    # Byte-pair encoding trained on the words alone merges each of them into one token.
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=_END_OF_WORD))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=100_000, end_of_word_suffix=_END_OF_WORD, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([[word] for word in config.words], trainer)
    state = _bpe_state(tokenizer)
    pieces = [*alphabet, *(letter + _END_OF_WORD for letter in alphabet)]
    pieces += [left + right for left, right in state]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys([*pieces, _BEGIN, _END]))}
    return CLIPTokenizer(vocab=vocabulary, merges=state, model_max_length=config.max_length)


def _bpe_state(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(left, right) for left, right in merges]


def build_text_encoder(config: TextConfig, tokenizer: CLIPTokenizer, seed: int) -> CLIPTextModel:
    """Return a fresh text encoder. It is never trained: random features of the words suffice for a small vocabulary."""
    model = config.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=model.vocab_size or len(tokenizer),
                hidden_size=model.hidden_size,
                intermediate_size=model.intermediate_size,
                projection_dim=model.hidden_size,
                num_hidden_layers=model.num_hidden_layers,
                num_attention_heads=model.num_attention_heads,
                max_position_embeddings=config.max_length,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    # At CLIP's initial scale positions dominate the words, and models that read the embeddings learn slowly.
    encoder.get_input_embeddings().weight.data.mul_(_WORD_SCALE)
    return encoder.eval()


@torch.no_grad()
def encode_prompts(tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, prompts: Sequence[str]) -> torch.Tensor:
    """Return text embeddings (B, L, D) float32; longer prompts are cut at the tokenizer's length L.

    Every prompt is encoded by itself, so that an embedding does not depend on what else is in the batch.
    """
    embeddings = []
    for prompt in prompts:
        tokens = tokenizer(
            prompt,
            padding="max_length",
            truncation=True,
            max_length=tokenizer.model_max_length,
            return_tensors="pt",
        )
        output = text_encoder(tokens.input_ids.to(text_encoder.device))
        embeddings.append(output.last_hidden_state[0].float())
    return torch.stack(embeddings)


def load_text_encoder(model_folder: str) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """Return the frozen tokenizer and text encoder of a local model folder."""
    folder = Path(model_folder)
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder").eval().requires_grad_(False)
    return CLIPTokenizer.from_pretrained(folder / "tokenizer"), encoder
