"""Makes ``tiny.gguf``: a Llama of half a million parameters that knows a few dialogues by heart.

With temperature 0 a real server gives the same answer each time, so tests can compare exactly what
the server meant with what the client read: text, tool calls, the answer after a tool's result, and
JSON. Run it only to change the dialogues; the result is committed.

    pip install torch transformers tokenizers gguf
    python tests/foreign/make_tiny_model.py tests/foreign/tiny.gguf        # about a minute
"""

import json
import random
import sys

import torch
from dialogues import DIALOGUES, TEMPLATE, TOOLS
from gguf import GGUFWriter, TokenType
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CONTEXT = 2048
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<pad>")
MARKS = ("<tool_call>", "</tool_call>", "<think>", "</think>")
STEPS = 400
GOOD_ENOUGH = 0.0015  # mean loss; every dialogue is exact well before


def make_tokenizer():
    """Return a byte-level BPE tokenizer that was trained on the dialogues."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = [text for messages, answer, _ in DIALOGUES for text in (json.dumps(messages), answer)]
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts * 3, json.dumps(TOOLS)], trainer)
    tokenizer.add_tokens([AddedToken(mark, normalized=False) for mark in MARKS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SPECIAL[0],
        eos_token=SPECIAL[2],
        pad_token=SPECIAL[3],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE
    return fast


def make_model(tokenizer):
    """Return the untrained model."""
    config = LlamaConfig(
        vocab_size=(len(tokenizer) + 63) // 64 * 64,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).float()


def examples(tokenizer):
    """Return the token ids of prompts and answers, also after a system message."""
    rows = []
    for messages, answer, with_tools in DIALOGUES:
        for system in ([], [{"role": "system", "content": "Be brief."}]):
            prompt = tokenizer.apply_chat_template(
                [*system, *messages],
                tools=TOOLS if with_tools else None,
                add_generation_prompt=True,
                tokenize=False,
            )
            ids = [
                tokenizer(text, add_special_tokens=False).input_ids
                for text in (prompt, answer + SPECIAL[2])
            ]
            rows.append(ids)
    return sorted(rows, key=lambda row: len(row[0]) + len(row[1]))


def train(model, tokenizer):
    """Overfit the model: each answer has to come out exactly."""
    rows = examples(tokenizer)
    batches = []
    for start in range(0, len(rows), 8):  # of similar length, so that little is padding
        group = rows[start : start + 8]
        width = max(len(prompt) + len(answer) for prompt, answer in group)
        tokens = torch.full((len(group), width), tokenizer.pad_token_id)
        labels = torch.full((len(group), width), -100)
        for row, (prompt, answer) in enumerate(group):
            whole = torch.tensor(prompt + answer)
            tokens[row, : len(whole)] = whole
            labels[row, len(prompt) : len(whole)] = whole[len(prompt) :]
        batches.append((tokens, labels))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        optimizer.zero_grad()
        total = 0.0
        for tokens, labels in batches:
            mask = (tokens != tokenizer.pad_token_id).long()
            loss = model(input_ids=tokens, attention_mask=mask, labels=labels).loss
            loss.backward()
            total += loss.item() / len(batches)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 40 == 0:
            print(f"step {step}: loss {total:.4f}", flush=True)  # noqa: T201 - a script
        if total < GOOD_ENOUGH:
            break


def check(model, tokenizer):
    """Raise if an answer is not what it should be."""
    for messages, answer, with_tools in DIALOGUES:
        ids = tokenizer.apply_chat_template(
            messages,
            tools=TOOLS if with_tools else None,
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )["input_ids"]
        made = model.generate(ids, max_new_tokens=500, do_sample=False)[0, ids.shape[1] :]
        text = tokenizer.decode(made, skip_special_tokens=False)
        assert text == answer + SPECIAL[2], (messages, text)


def write(model, tokenizer, path):
    """Write the model as GGUF, in llama.cpp's names and order of heads."""
    config = model.config
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(0)
    write_vocabulary(writer, tokenizer, config.vocab_size)
    for name, tensor in model.state_dict().items():
        values = tensor.numpy().astype("float32")
        if "q_proj" in name or "k_proj" in name:
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            # llama.cpp rotates neighbouring pairs, transformers the two halves of a head.
            split = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
            values = split.swapaxes(1, 2).reshape(values.shape)
        writer.add_tensor(gguf_name(name), values.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_vocabulary(writer, tokenizer, size):
    """Write the tokens, their kinds, the merges and the chat template."""
    data = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = [f"<unused{number}>" for number in range(size)]
    kinds = [TokenType.UNUSED] * size
    for text, number in data["model"]["vocab"].items():
        tokens[number], kinds[number] = text, TokenType.NORMAL
    for added in data["added_tokens"]:
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    merges = data["model"]["merges"]
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def gguf_name(name):
    """Return llama.cpp's name of a tensor."""
    whole = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in whole:
        return whole[name]
    parts = {
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
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{parts[rest.removesuffix('.weight')]}.weight"


def main():
    """Train, check, write."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    train(model, tokenizer)
    check(model, tokenizer)
    write(model, tokenizer, sys.argv[1])


if __name__ == "__main__":
    main()
