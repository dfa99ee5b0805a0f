"""Which rows are held out, which are kept of many, and what their content is: by hashes, so on every machine the same.

    train, heldout = split_by_prompt(rows, heldout=0.1, seed=0)

Left out: reading and cleaning (`sources.py`).
"""

import hashlib

from datasets import Dataset

from rlhf_lab.data.prompts import canonical_json, prompt_key
from rlhf_lab.data.sources import shown_names
from rlhf_lab.errors import UserError

ROWS_AT_ONCE = 1000


def split_by_prompt(dataset: Dataset, *, heldout: int | float, seed: int) -> tuple[Dataset, Dataset]:
    """(train, heldout) with no prompt in both: `heldout` prompts if an int, about that fraction of prompts if a float.

    A hash of seed and prompt decides, not the order of rows. With a fraction it decides each prompt on its own, so a
    prompt goes to the same side in every data set; a count ranks the prompts of this one.
    """
    if "prompt" not in dataset.column_names:
        raise UserError(
            f"To split by prompt, a prompt column is needed; the data has {shown_names(dataset.column_names)}."
        )
    keys = [prompt_key(prompt) for prompt in dataset["prompt"]]
    hashes = {key: _hash(seed, key) for key in keys}
    chosen = _smallest(hashes, heldout) if isinstance(heldout, int) else _below(hashes, heldout)
    if not 0 < len(chosen) < len(hashes):
        raise UserError(
            f"heldout={heldout} of {len(hashes)} different prompts leaves a side empty. Give two prompts or more, and "
            f"a whole number from 1 to {len(hashes) - 1} or a larger fraction below 1."
        )
    train, held = ([i for i, key in enumerate(keys) if (key in chosen) is side] for side in (False, True))
    return dataset.select(train), dataset.select(held)


def _smallest(hashes: dict[str, str], number: int) -> set[str]:
    return set(sorted(hashes, key=hashes.__getitem__)[: max(0, number)])


def _below(hashes: dict[str, str], fraction: float) -> set[str]:
    """The keys whose hash, read as a number from 0 to 1, is below `fraction`."""
    return {key for key, digest in hashes.items() if int(digest, 16) < fraction * 16 ** len(digest)}


def limit_rows(dataset: Dataset, max_rows: int | None, seed: int) -> Dataset:
    """At most `max_rows` rows in their order, chosen by a hash of seed and prompt: a larger limit keeps these and adds.

    Demonstrations, preferences and prompts of one file keep the same prompts.
    """
    if max_rows is not None and max_rows < 1:
        raise UserError(f"max_rows={max_rows} would leave no row. Give 1 or more, or leave it out for all rows.")
    if max_rows is None or max_rows >= len(dataset):
        return dataset
    # The row's own hash decides among rows with one prompt, so that their order does not. The prompt's is another one
    # than decides about holding out: else the rows that are kept would be those that are held out.
    ranked = sorted(
        (_hash(seed, "limit " + prompt_key(row["prompt"])), _hash(seed, canonical_json(row)), index)
        for index, row in enumerate(dataset)
    )
    return dataset.select(sorted(index for *_, index in ranked[:max_rows]))


def content_hash(dataset: Dataset) -> str:
    """SHA-256 of the rows in their order as canonical JSON, hex: the same on every machine, for run records."""
    digest = hashlib.sha256()
    for start in range(0, len(dataset), ROWS_AT_ONCE):  # rows of Arrow one by one would take longer than their hash
        columns = dataset[start : start + ROWS_AT_ONCE]
        for values in zip(*columns.values(), strict=True):
            digest.update(canonical_json(dict(zip(columns, values, strict=True))).encode() + b"\n")
    return digest.hexdigest()


def _hash(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}\n{text}".encode()).hexdigest()
