"""Tiny random LLaMAs as other programs write them: Hugging Face folders and GGUF."""

import gguf
import numpy as np
import tokenizers
import torch
import transformers

WORDS = "the a cat dog sat ran on mat far away is it true that who what why ?".split()
SPECIALS = ("<unk>", "<s>", "</s>")
VOCABULARY = (*SPECIALS, *WORDS)

SHAPES = {
    "MHA": {"num_key_value_heads": 4},
    "GQA": {"num_key_value_heads": 2},
    "MQA": {"num_key_value_heads": 1},
    "tied": {"tie_word_embeddings": True},
    "odd sizes": {
        "hidden_size": 30,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "head_dim": 6,
        "intermediate_size": 37,
        "num_hidden_layers": 1,
        "vocab_size": 23,
        "rms_norm_eps": 1e-3,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    },
}


def write_llama(folder, *, shard_size="1GB", dtype=torch.float32, **attributes):
    """Writes the folder and returns the model in fp32, which is the oracle."""
    sizes = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,  # large, so that no part is near to linear
        "attn_implementation": "eager",
    }
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**(sizes | attributes))
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:  # which do something then
                parameter.add_(torch.randn_like(parameter) * 0.3)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard_size)
    return model.float()


def write_tokenizer(folder):
    """Writes a tokenizer of whole words, which adds no token to a text."""
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(
            {word: number for number, word in enumerate(VOCABULARY)}, unk_token="<unk>"
        )
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)


GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers.": "blk.",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_tensors(model):
    """Returns the tensors as llama.cpp's converter names and orders them."""
    c = model.config
    tensors = {}
    for theirs, value in model.state_dict().items():
        if c.tie_word_embeddings and theirs == "lm_head.weight":
            continue
        name, array = theirs, value.numpy()
        for long, short in GGUF_NAMES.items():
            name = name.replace(long, short)
        if "attn_q" in name:
            array = pairs_side_by_side(array, heads=c.num_attention_heads)
        if "attn_k" in name:
            array = pairs_side_by_side(array, heads=c.num_key_value_heads)
        tensors[name] = np.ascontiguousarray(array)
    return tensors


def pairs_side_by_side(rows, *, heads):
    """Reorders a head's rows, or its biases, 0 1 2 3 4 5 to 0 3 1 4 2 5."""
    halves = rows.reshape(heads, 2, -1, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def gguf_metadata(model):
    c = model.config
    return {
        "general.license": "apache-2.0",
        "llama.block_count": c.num_hidden_layers,
        "llama.context_length": c.max_position_embeddings,
        "llama.embedding_length": c.hidden_size,
        "llama.feed_forward_length": c.intermediate_size,
        "llama.attention.head_count": c.num_attention_heads,
        "llama.attention.head_count_kv": c.num_key_value_heads,
        "llama.attention.layer_norm_rms_epsilon": c.rms_norm_eps,
        "llama.rope.freq_base": c.rope_parameters["rope_theta"],
        "llama.rope.dimension_count": c.head_dim,
        "llama.vocab_size": c.vocab_size,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [f"token {n}" for n in range(c.vocab_size)],
    }


def write_gguf(path, metadata, tensors, *, architecture="llama"):
    """Writes the file; a metadata value of None is left out."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in metadata.items():
        if isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif value is not None:
            writer.add_array(key, value)
    for name, array in tensors.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def reference_logits(model, tokens):
    with torch.no_grad():
        return model(torch.tensor(np.asarray(tokens))).logits.numpy()
