"""What transformers' `generate` writes, greedily or by beam search, as an oracle."""

import itertools

import torch


def their_texts(twin, prompts, *, sampling_params, eos):
    """Returns the tokens by prompt, each up to its end.

    Prompts of one length run at a time: transformers would count padding as text.
    """
    found = {}
    ordered = sorted(prompts, key=lambda prompt: len(prompt.token_ids))
    for length, grouped in itertools.groupby(ordered, lambda p: len(p.token_ids)):
        group = list(grouped)
        texts = _generated(twin, group, sampling_params=sampling_params, eos=eos)
        for prompt, text in zip(group, texts[:, length:].tolist(), strict=True):
            ends = [at for at, token in enumerate(text) if token in eos]
            found[prompt.id] = tuple(text[: ends[0] + 1] if ends else text)
    return found


def _generated(twin, prompts, *, sampling_params, eos):
    tokens = torch.tensor([prompt.token_ids for prompt in prompts])
    decay = (sampling_params.length_decay_start, sampling_params.length_decay_factor)
    return twin.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        do_sample=False,
        num_beams=sampling_params.beams,
        length_penalty=sampling_params.length_penalty
        if sampling_params.beams > 1
        else None,
        max_new_tokens=sampling_params.max_new_tokens,
        min_new_tokens=sampling_params.min_new_tokens or None,
        exponential_decay_length_penalty=decay if decay[1] != 1 else None,
        repetition_penalty=sampling_params.repetition_penalty,
        no_repeat_ngram_size=sampling_params.no_repeat_ngram,
        eos_token_id=list(eos) or None,
        pad_token_id=eos[0] if eos else 1,
    )
