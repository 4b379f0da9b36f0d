"""Perplexity of a text behind a compressed context, by kvpress: python3 compare.py MODEL TEXT FOLDER

MODEL is a GGUF file of Llama's architecture with weights in 32 bits, FOLDER a report of `mistralrs-kv eval` on the same
model and text, of which the results are put beside kvpress'.
"""

import json
import math
import os
import sys

import gguf
import numpy
import torch
import transformers
from kvpress import (
    AdaKVPress,
    ChunkKVPress,
    CriticalKVPress,
    ExpectedAttentionPress,
    KeyDiffPress,
    KnormPress,
    LagKVPress,
    SnapKVPress,
    StreamingLLMPress,
    TOVAPress,
)
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

CONTEXT, CONTINUATION = 3000, 512
SHARES = {"50%": 0.5, "25%": 0.25, "10%": 0.1}


def snap(removed):
    return SnapKVPress(compression_ratio=removed, window_size=32, kernel_size=7)


# Ours, as `eval --policies` takes them, and theirs.
PRESSES = {
    "key-diff": lambda removed: KeyDiffPress(removed),
    "k-norm": lambda removed: KnormPress(removed),
    "lag-kv": lambda removed: LagKVPress(removed),
    "tova:decode=append": lambda removed: TOVAPress(removed),
    "expected-attention": lambda removed: ExpectedAttentionPress(removed),
    "snap-kv": snap,
    "chunk-kv": lambda removed: ChunkKVPress(press=snap(removed)),
    "critical-kv": lambda removed: CriticalKVPress(press=snap(removed)),
    "ada-kv": lambda removed: AdaKVPress(press=snap(removed), alpha_safeguard=0.2),
    "streaming-llm": lambda removed: StreamingLLMPress(removed),
}


def read_tokenizer(reader):
    """As mistral.rs makes it from a GGUF file. The model's own tokenizer splits blanks and punctuation otherwise."""
    field = lambda name: reader.fields[f"tokenizer.ggml.{name}"].contents()
    vocabulary = {token: number for number, token in enumerate(field("tokens"))}
    tokenizer = Tokenizer(models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in field("merges")]))
    words = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = pre_tokenizers.Split(Regex(words), "isolated", False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def in_halves(weight, heads):
    """GGUF stores the rows of queries and keys pair by pair, transformers half by half."""
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def read_model(reader):
    number = lambda name: reader.fields[f"llama.{name}"].contents()
    heads, kv_heads = number("attention.head_count"), number("attention.head_count_kv")
    config = transformers.LlamaConfig(
        vocab_size=len(reader.fields["tokenizer.ggml.tokens"].contents()),
        hidden_size=number("embedding_length"),
        intermediate_size=number("feed_forward_length"),
        num_hidden_layers=number("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=number("context_length"),
        rms_norm_eps=number("attention.layer_norm_rms_epsilon"),
        rope_theta=number("rope.freq_base"),
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )
    tensors = {}
    for tensor in reader.tensors:
        shape = [int(length) for length in reversed(tensor.shape)]
        tensors[tensor.name] = torch.from_numpy(numpy.array(tensor.data)).view(*shape)
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    state = {
        "model.embed_tokens.weight": tensors["token_embd.weight"],
        "lm_head.weight": tensors["token_embd.weight"],
        "model.norm.weight": tensors["output_norm.weight"],
    }
    for layer in range(config.num_hidden_layers):
        for theirs, stored in names.items():
            weight = tensors[f"blk.{layer}.{stored}.weight"]
            if stored in ("attn_q", "attn_k"):
                weight = in_halves(weight, heads if stored == "attn_q" else kv_heads)
            state[f"model.layers.{layer}.{theirs}.weight"] = weight
    model = transformers.LlamaForCausalLM(config).eval()
    model.load_state_dict(state)
    return model


@torch.no_grad()
def perplexity(model, tokens, press):
    """Of what follows the context, with the context compressed by `press`; as a perplexity."""
    cache = transformers.DynamicCache()
    if press is None:
        context = model.model(tokens[:, :CONTEXT], past_key_values=cache)
    else:
        with press(model):
            context = model.model(tokens[:, :CONTEXT], past_key_values=cache)
    first = model.lm_head(context.last_hidden_state[:, -1:])
    behind = tokens[:, CONTEXT : CONTEXT + CONTINUATION - 1]
    positions = torch.arange(CONTEXT, CONTEXT + CONTINUATION - 1)[None]
    rest = model(behind, past_key_values=cache, position_ids=positions).logits
    logits = torch.cat([first, rest], 1)[0].double().log_softmax(-1)
    expected = tokens[0, CONTEXT : CONTEXT + CONTINUATION, None]
    return math.exp(-logits.gather(1, expected).mean())


def read_ours(folder):
    """Perplexities of a report, by policy and budget."""
    found = {}
    try:
        lines = open(os.path.join(folder, "results.jsonl"))
    except OSError as error:
        sys.exit(f"{error}: run `cargo xtask eval --out {folder} -- --tasks text` first")
    for line in lines:
        result = json.loads(line)
        is_of_a_policy = not result.get("bytes_of") and not result.get("draw")
        if result["task"] == "text" and is_of_a_policy and len(result["nll"]) == CONTINUATION:
            nll = result["nll"]
            found[result["policy"], result["budget"]] = math.exp(sum(nll) / len(nll))
    return found


def show(name, budget, theirs, ours):
    beside = f"{ours:8.2f} {100 * (ours / theirs - 1):+7.2f} %" if ours else "       -"
    print(f"{name:20} {budget:>5} {theirs:8.2f} {beside}", flush=True)


def main(model_path, text_path, folder):
    ours = read_ours(folder)
    reader = gguf.GGUFReader(model_path)
    tokens = read_tokenizer(reader).encode(open(text_path).read(), add_special_tokens=False).ids
    if len(tokens) < CONTEXT + CONTINUATION:
        sys.exit(f"{text_path} has {len(tokens)} tokens, {CONTEXT + CONTINUATION} are needed")
    tokens = torch.tensor([tokens[: CONTEXT + CONTINUATION]])
    model = read_model(reader)
    print(f"{'policy':20} {'keeps':>5} {'kvpress':>8} {'ours':>8}")
    show("keep-all", "full", perplexity(model, tokens, None), ours.get(("keep-all", "full")))
    for name, press in PRESSES.items():
        for budget, share in SHARES.items():
            show(name, budget, perplexity(model, tokens, press(1 - share)), ours.get((name, budget)))


main(*sys.argv[1:])
