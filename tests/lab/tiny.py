"""Makes the lab's model and data: a 2-layer Llama, briefly pre-trained so that fine-tuning it lowers the loss, and one dataset per stage.

Runs inside the lab's environment (`python tiny.py FOLDER`): FOLDER/models/tiny-llama and FOLDER/data. Same bytes every time.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

SPECIAL = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|finetune_right_pad_id|>",
)
COLOURS = ("red", "black", "white", "brown", "grey", "golden", "small", "old")
ANIMALS = {
    "fox": "jumps",
    "dog": "runs",
    "cat": "sleeps",
    "horse": "walks",
    "owl": "flies",
    "mouse": "hides",
    "hare": "hops",
    "wolf": "waits",
}
PLACES = ("over the river", "under the bridge", "in the forest", "behind the house", "near the lake", "on the hill")
EXAMPLES = 240


def sentence(dice: random.Random) -> tuple[str, str, str]:
    """Colour, animal and the sentence that tells of them; the verb follows from the animal, so there is something to learn."""
    colour, (animal, verb) = dice.choice(COLOURS), dice.choice(list(ANIMALS.items()))
    return colour, animal, f"The {colour} {animal} {verb} {dice.choice(PLACES)}."


def datasets() -> dict[str, list[dict[str, object]]]:
    """One small dataset per training stage, in the shapes that LLaMA-Factory documents."""
    dice = random.Random(7)
    toy, pair, kto, plain, long = [], [], [], [], []
    for index in range(EXAMPLES):
        colour, animal, good = sentence(dice)
        bad = " ".join(dice.sample(good.split(), 6))
        asked = f"Tell me about the {colour} {animal}."
        toy.append({"instruction": asked, "input": "", "output": good})
        pair.append({"instruction": asked, "input": "", "chosen": good, "rejected": bad})
        kto.append({"instruction": asked, "input": "", "output": good if index % 2 else bad, "kto_tag": bool(index % 2)})
        long.append({"instruction": asked, "input": "", "output": " ".join(sentence(dice)[2] for _ in range(60))})
        plain.append({"text": " ".join(sentence(dice)[2] for _ in range(4))})
    return {"toy": toy, "pair": pair, "kto": kto, "plain": plain, "long": long}


INFO = {
    "toy": {"file_name": "toy.json"},
    "pair": {
        "file_name": "pair.json",
        "ranking": True,
        "columns": {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"},
    },
    "kto": {
        "file_name": "kto.json",
        "columns": {"prompt": "instruction", "query": "input", "response": "output", "kto_tag": "kto_tag"},
    },
    "plain": {"file_name": "plain.json", "columns": {"prompt": "text"}},
    "long": {"file_name": "long.json"},
    "wrong_columns": {"file_name": "toy.json", "columns": {"prompt": "question", "response": "answer"}},
    "no_answers": {"file_name": "no_answers.json", "formatting": "sharegpt"},
    "broken_json": {"file_name": "broken_json.json"},
}


def write_data(folder: Path) -> None:
    """FOLDER/data with dataset_info.json; some entries are wrong on purpose."""
    folder.mkdir(parents=True, exist_ok=True)
    made = datasets()
    for name, rows in made.items():
        (folder / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    asked = [{"conversations": [{"from": "human", "value": row["instruction"]}]} for row in made["toy"][:40]]
    (folder / "no_answers.json").write_text(json.dumps(asked) + "\n", encoding="utf-8")
    (folder / "broken_json.json").write_text(json.dumps(made["toy"][:20], indent=1)[:-40] + "\n", encoding="utf-8")
    (folder / "dataset_info.json").write_text(json.dumps(INFO, indent=2) + "\n", encoding="utf-8")


def write_model(folder: Path, texts: list[str]) -> None:
    """FOLDER/models/tiny-llama: byte-level BPE of about 400 tokens, 64 hidden units, 2 layers, float32, a hundred steps of pre-training."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(7)
    torch.set_num_threads(1)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, special_tokens=list(SPECIAL), initial_alphabet=alphabet))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=SPECIAL[0], eos_token=SPECIAL[4], pad_token=SPECIAL[6], additional_special_tokens=list(SPECIAL[1:6])
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    _pretrain(model, [tokenizer(text)["input_ids"] for text in texts])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _pretrain(model: object, samples: list[list[int]], steps: int = 100) -> None:
    import torch

    dice = random.Random(7)
    stream = [token for sample in samples for token in sample]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        starts = [dice.randrange(len(stream) - 49) for _ in range(16)]
        batch = torch.tensor([stream[start : start + 48] for start in starts])
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def main(folder: Path) -> None:
    """Writes model and data, unless they are there."""
    write_data(folder / "data")
    if not (folder / "models" / "tiny-llama" / "tokenizer.json").exists():
        write_model(folder / "models" / "tiny-llama", [str(row["text"]) for row in datasets()["plain"]])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
