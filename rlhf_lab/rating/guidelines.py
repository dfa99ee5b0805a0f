"""What raters are asked to look at: plain text with `# headings`, `- items` and paragraphs, nothing else."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlhf_lab.errors import UserError

SHIPPED = Path(__file__).parent / "guidelines.txt"
MAX_CHARACTERS = 50_000


@dataclass(frozen=True)
class Block:
    """One heading, one paragraph, or one list with its items."""

    kind: Literal["heading", "paragraph", "list"]
    lines: tuple[str, ...]


def read_guidelines(path: str | None) -> list[Block]:
    """The blocks of a file, by default of the shipped one. Raises UserError where it can not be read."""
    file = Path(path) if path else SHIPPED
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"can not read the guidelines {file} ({error}); give a text file in UTF-8") from None
    if not text.strip() or len(text) > MAX_CHARACTERS:
        raise UserError(f"{file} has {len(text)} characters; guidelines have 1 to {MAX_CHARACTERS}")
    return [_block(part.strip()) for part in text.replace("\r\n", "\n").split("\n\n") if part.strip()]


def _block(part: str) -> Block:
    if part.startswith("# ") and "\n" not in part:
        return Block("heading", (part[2:].strip(),))
    if part.startswith("- "):
        items = ("\n" + part).split("\n- ")[1:]
        return Block("list", tuple(" ".join(item.split()) for item in items))
    return Block("paragraph", (" ".join(part.split()),))
