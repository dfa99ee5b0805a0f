"""Rows of tokens on disk while their stage is not finished: tokenised by one process, once.

A killed run reads them when it goes on, and of the processes of a launch the first one makes them and the others read.
Kept in the stage's folder and removed with its checkpoints. What decides the tokens is in the name, so that nothing
stale is read.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import Dataset, load_from_disk
from transformers import PreTrainedTokenizerBase

from rlhf_lab.data.lengths import Encoded, Fit
from rlhf_lab.data.prompts import canonical_json
from rlhf_lab.data.splits import content_hash
from rlhf_lab.training.run import process_state

FOLDER = "tokens"  # below the folder of the stage
FORM = 1  # of the rows; a change of it makes older ones unreadable


def encoded_once(
    folder: Path | None,
    encode: Callable[..., Encoded],
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    **settings: Any,
) -> Encoded:
    """`encode(rows, tokenizer, **settings)`, or what an earlier call left of it in `folder` (None: nothing is kept).

    To be called by all processes at the same time.
    """
    facts = _facts_of(tokenizer)
    if folder is None or facts is None:  # tokenizers that do not describe themselves can not be told apart
        return encode(rows, tokenizer, **settings)
    made_of = {"form": FORM, "rows": content_hash(rows), "tokenizer": facts, **settings}
    kept = folder / FOLDER / hashlib.sha256(canonical_json(made_of).encode()).hexdigest()[:16]
    state = process_state()
    with state.main_process_first():
        found = _read(kept)
        if found is None:
            found = encode(rows, tokenizer, **settings)
            if state.is_main_process:
                _keep(kept, found)
    return found


def forget_tokens(folder: Path) -> None:
    """Remove what was kept for the stage in `folder`."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def _facts_of(tokenizer: PreTrainedTokenizerBase) -> Mapping[str, Any] | None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    return {
        "backend": backend.to_str(),
        "template": tokenizer.chat_template,
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "kind": type(tokenizer).__name__,
    }


def _read(kept: Path) -> Encoded | None:
    """None where nothing was kept, or not whole."""
    try:
        fit = Fit(**json.loads((kept / "fit.json").read_text(encoding="utf-8")))
        rows = load_from_disk(str(kept / "rows"), keep_in_memory=True)  # the folder may go while they are used
    except (OSError, ValueError, TypeError):
        return None
    return Encoded(rows, fit) if isinstance(rows, Dataset) else None


def _keep(kept: Path, encoded: Encoded) -> None:
    """The folder gets its name once all is in it: a process that is killed here leaves nothing that looks whole."""
    unfinished = kept.with_name(f".{kept.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(kept, ignore_errors=True)
    encoded.rows.save_to_disk(str(unfinished / "rows"))
    (unfinished / "fit.json").write_text(json.dumps(asdict(encoded.fit)), encoding="utf-8")
    unfinished.rename(kept)
