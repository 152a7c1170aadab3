"""The model's own tokenizer from this machine, prepared as LLaMA-Factory prepares it (model/loader.py, Template.fix_special_tokens)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from doctor.dataset.templates import Element, Template
from doctor.memory.local_config import find, place_of
from doctor.support.optional import optional

MAX_BYTES = 256 << 20
"""The largest tokenizer.json that is read; Gemma's has 33 MB."""


_TAKEN_AS_IT_IS = ("", "PreTrainedTokenizerFast", "TokenizersBackend")
"""Measured with transformers 5.6: other classes (Llama, Gemma, Qwen2, GPT2) take vocabulary and merges, not the splitting of texts."""


class Tokenizer:
    """Texts to token ids. `eos` and `bos` are ids, None where the tokenizer has none."""

    def __init__(self, backend: Any, names: Mapping[str, str], *, special: Any, rebuilt: str = "", identity: str = "") -> None:
        self.identity = identity
        """A digest of the files that the tokenizer was read from, and of the tokens that were added since."""
        self.rebuilt = rebuilt
        """The class that transformers 5 builds anew from the vocabulary, whatever else tokenizer.json says; "" if it takes it as it is."""
        self._backend = backend
        self._special = special
        self._names = dict(names)
        self._cache: dict[str, Any] = {}
        self.missing: set[str] = set()
        """Tokens of the template that the tokenizer does not know: LLaMA-Factory puts None in their place and fails on it."""

    @property
    def eos(self) -> int | None:
        """Id of the end of text."""
        return self._id("eos_token")

    @property
    def bos(self) -> int | None:
        """Id of the begin of text."""
        return self._id("bos_token")

    def _id(self, name: str) -> int | None:
        token = self._names.get(name)
        return None if token is None else self._backend.token_to_id(token)

    def prepare(self, template: Template, config: Mapping[str, Any]) -> None:
        """Add the tokens that the options and the template add."""
        added = [_listed(config.get("add_tokens")), _listed(config.get("add_special_tokens"))]
        self.identity += repr(added)
        self._backend.add_tokens(added[0])
        self._add_special(added[1])
        stop_words = template.stop_words
        if template.replace_eos and stop_words:
            self._names["eos_token"], stop_words = stop_words[0], stop_words[1:]
            self._add_special([self._names["eos_token"]])
        if self.eos is None:
            self._names["eos_token"] = "<|endoftext|>"  # noqa: S105 (no password)
            self._add_special(["<|endoftext|>"])
        self._add_special(stop_words)
        self._cache.clear()

    def _add_special(self, tokens: Iterable[str]) -> None:
        self._backend.add_special_tokens([self._special(token, normalized=False, special=True) for token in tokens])

    def end_of_text(self, template: str) -> str:
        """What pre-training appends to each text (processor/pretrain.py)."""
        return "<|end_of_text|>" if template == "llama3" else self._names.get("eos_token", "")

    def special_tokens(self) -> set[str]:
        """Tokens that the tokenizer takes for marks wherever they stand."""
        return {token.content for token in self._backend.get_added_tokens_decoder().values() if token.special}

    def encode_all(self, groups: Iterable[list[list[Element]]]) -> dict[str, Any]:
        """The texts of many samples, encoded at once on all cores; may run in any thread."""
        texts = list({part for turns in groups for parts in turns for part in parts if isinstance(part, str) and part})
        return dict(zip(texts, self._backend.encode_batch_fast(texts, add_special_tokens=False), strict=True))

    def remember(self, encoded: dict[str, Any]) -> None:
        """From now on `ids` and `count` find these texts, in place of those before."""
        self._cache = encoded

    def ids(self, parts: list[Element]) -> list[int]:
        """Token ids of one turn (Template._convert_elements_to_ids)."""
        out: list[int] = []
        for part in parts:
            if isinstance(part, str):
                out += self._text(part) if part else ()
            elif (token := part.get("token")) is not None:
                out.append(self._of_token(token))
            elif (found := self._id(part["special"])) is not None:
                out.append(found)
        return out

    def count(self, parts: list[Element]) -> int:
        """The number of `ids` of one turn."""
        found = 0
        for part in parts:
            if isinstance(part, str):
                found += len(self._encoded(part)) if part else 0
            elif (token := part.get("token")) is not None:
                self._of_token(token)
                found += 1
            else:
                found += self._id(part["special"]) is not None
        return found

    def _text(self, text: str) -> list[int]:
        ids: list[int] = self._encoded(text).ids
        return ids

    def _encoded(self, text: str) -> Any:
        found = self._cache.get(text)
        return found if found is not None else self._backend.encode(text, add_special_tokens=False)

    def _of_token(self, token: str) -> int:
        found = self._backend.token_to_id(token)
        found = self._id("unk_token") if found is None else found
        if found is None:
            self.missing.add(token)
        return found or 0


def _listed(value: Any) -> list[str]:
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else ()
    return [str(part).strip() for part in parts]


def local_tokenizer(config: Mapping[str, Any], folder: Path) -> tuple[Tokenizer | None, str]:
    """The tokenizer of `model_name_or_path`, or None and why not: a key of words/data.yaml, group unknown."""
    library = optional("tokenizers", "data")
    if library is None:
        return None, "no_library"
    if config.get("use_fast_tokenizer") is False or config.get("split_special_tokens"):
        return None, "slow_tokenizer"
    place = tokenizer_folder(config, folder)
    if place is None:
        return None, "no_tokenizer"
    file = place / "tokenizer.json"
    try:
        if file.stat().st_size > MAX_BYTES:
            return None, "no_tokenizer"
        backend = library.Tokenizer.from_file(str(file))
    except Exception:  # the library raises plain Exception for a damaged file
        return None, "broken_tokenizer"
    backend.no_truncation()
    backend.no_padding()
    names, added = _named_tokens(place)
    kind = str(settings_in(place / "tokenizer_config.json").get("tokenizer_class") or "")
    rebuilt = "" if kind in _TAKEN_AS_IT_IS else kind
    tokenizer = Tokenizer(backend, names, special=library.AddedToken, rebuilt=rebuilt, identity=_identity(place))
    backend.add_special_tokens([library.AddedToken(token, normalized=False, special=True) for token in added])
    return tokenizer, ""


def _identity(place: Path) -> str:
    names = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
    digest = hashlib.blake2b(digest_size=16)
    for file in (place / name for name in names):
        digest.update(file.read_bytes() if file.is_file() and file.stat().st_size <= MAX_BYTES else b"\0")
    return digest.hexdigest()


def tokenizer_folder(config: Mapping[str, Any], folder: Path) -> Path | None:
    """The folder on this machine that holds the model's tokenizer.json."""
    name = str(config.get("model_name_or_path") or "")
    direct = [Path(name).expanduser(), folder / Path(name).expanduser()] if name else []
    beside = find(name, place_of(config, {"config.folder": str(folder)}))
    for place in (*direct, *([beside.parent] if beside else [])):
        try:
            if (place / "tokenizer.json").is_file():
                return place
        except (OSError, ValueError):
            continue
    return None


def _named_tokens(place: Path) -> tuple[dict[str, str], list[str]]:
    """bos, eos and unk by name, and all special tokens that the configuration of the tokenizer adds, by id."""
    settings = {**settings_in(place / "special_tokens_map.json"), **settings_in(place / "tokenizer_config.json")}
    names = {name: text for name in ("bos_token", "eos_token", "unk_token", "pad_token") if (text := _text_of(settings.get(name)))}
    decoder = settings.get("added_tokens_decoder")
    listed = sorted(decoder.items(), key=lambda item: int(item[0])) if isinstance(decoder, dict) else []
    added = [text for _, value in listed if isinstance(value, dict) and value.get("special") and (text := _text_of(value))]
    extra = settings.get("additional_special_tokens") or settings.get("extra_special_tokens")
    more = [text for value in (extra if isinstance(extra, list) else []) if (text := _text_of(value))]
    return names, list(dict.fromkeys([*added, *names.values(), *more]))


def _text_of(value: Any) -> str:
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else ""


def settings_in(file: Path, most_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """The JSON object of a model's file; empty for one that is missing, larger or no object."""
    try:
        found = json.loads(file.read_bytes()) if file.stat().st_size <= most_bytes else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
