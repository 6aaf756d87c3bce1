"""A tiny model for a first try: two layers, 294 tokens, random weights that are always the same. It writes no sense.

Usage: tiny_model.py FILE. A file that is there already is left alone.
"""

import os
import sys

import gguf
import numpy as np

DIM, FEED_FORWARD, LAYERS, HEADS, CONTEXT = 64, 192, 2, 4, 4096
WORDS = ["▁the", "▁ship", "▁sea", "▁wharf", "▁and", "▁is", "▁a", "▁of", "▁"]
CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def add_vocabulary(writer):
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL] + [gguf.TokenType.BYTE] * 256
    scores = [0.0] * 3 + [-1000.0] * 256
    plain = [chr(letter) for letter in range(ord("a"), ord("z") + 1)] + WORDS
    tokens += plain
    kinds += [gguf.TokenType.NORMAL] * len(plain)
    scores += [-float(rank) for rank in range(len(plain))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT)
    writer.add_vocab_size(len(tokens))
    return len(tokens)


def write(path):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(DIM)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(DIM // HEADS)
    writer.add_file_type(0)
    vocabulary = add_vocabulary(writer)
    chance = np.random.default_rng(20261121)

    def random(name, *shape):
        writer.add_tensor(name, (chance.standard_normal(shape) * 0.1).astype(np.float32))

    def ones(name):
        writer.add_tensor(name, np.ones(DIM, np.float32))

    random("token_embd.weight", vocabulary, DIM)
    # Words are likelier than single bytes: what it writes can at least be read.
    output = chance.standard_normal((vocabulary, DIM)).astype(np.float32) * 0.1
    output[: 3 + 256] *= 0.05
    writer.add_tensor("output.weight", output)
    ones("output_norm.weight")
    for layer in range(LAYERS):
        ones(f"blk.{layer}.attn_norm.weight")
        ones(f"blk.{layer}.ffn_norm.weight")
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            random(f"blk.{layer}.{part}.weight", DIM, DIM)
        random(f"blk.{layer}.ffn_gate.weight", FEED_FORWARD, DIM)
        random(f"blk.{layer}.ffn_up.weight", FEED_FORWARD, DIM)
        random(f"blk.{layer}.ffn_down.weight", DIM, FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    path = sys.argv[1]
    if os.path.exists(path):
        return
    write(path + ".new")
    os.rename(path + ".new", path)


main()
