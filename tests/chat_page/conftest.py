"""A small run, and its chat page on a free port."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chat_page.small_run import chat_served, loaded, small_run
from tests.rating.desk import Served


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The models of a run and its folder, for all tests of a file."""
    return loaded(small_run(tmp_path_factory.mktemp("runs") / "secretly_named"))


@pytest.fixture
def page(tmp_path: Path, parts: Any) -> Iterator[Served]:
    """The page with no votes yet."""
    with chat_served(tmp_path, parts) as running:
        yield running
