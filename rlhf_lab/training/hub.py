"""Uploading a finished folder to the hub. Nothing is lost where that fails: the folder stays as it is."""

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from rlhf_lab.errors import UserError

NOT_UPLOADED = ("checkpoint-*/**", "samples/**", "metrics.jsonl", "not_finite_batch.pt")


def push_to_hub(folder: Path, model_id: str | None) -> str:
    """Upload models, tokenizer and card of `folder` to `model_id`, by default named as the folder; returns its address.

    Raises UserError without a network, a login or the right to write.
    """
    name = model_id or folder.resolve().name
    api = HfApi()
    try:
        repository = api.create_repo(name, exist_ok=True).repo_id
        address = api.upload_folder(repo_id=repository, folder_path=str(folder), ignore_patterns=list(NOT_UPLOADED))
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:
        raise UserError(
            f"{folder} is saved, but could not be pushed to the hub as {name!r}: {error}. Log in with `hf auth login`, "
            f"then type: hf upload {name} {folder}"
        ) from error
    return str(address)
