"""The models at work for the page: one question at a time, and a short queue behind it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rlhf_lab.chat_models import STAGES, Asked, RunModels
from rlhf_lab.chat_page.measures import AnswerMeasures, Judges, measure
from rlhf_lab.generation.sample import draw_uniforms
from rlhf_lab.rating.guard import RefusedError

MOST_WAITING = 8  # below the 40 threads that FastAPI has for routes, so that votes and files still get through


@dataclass(frozen=True)
class Written:
    """One model's answer with its measures."""

    stage: str
    text: str
    measures: AnswerMeasures


class Models:
    """The run's models behind a lock: a model is never run by two threads at once."""

    def __init__(self, models: RunModels, judges: Judges, *, most_waiting: int = MOST_WAITING) -> None:
        self.models = models
        self.judges = judges
        self._alone = threading.Lock()
        self._places = threading.BoundedSemaphore(1 + most_waiting)

    def answers(self, asked: Asked, *, temperature: float, seed: int) -> list[Written]:
        """One answer of each model, each with random numbers of its own that belong to the seed.

        Raises RefusedError where too many questions are waiting already.
        """
        models, num_tokens = self.models, self.models.experiment.ppo.max_completion_length
        with self._turn():
            said = [
                models.sample(
                    stage,
                    asked,
                    draw_uniforms(1, num_tokens, seed=seed, stream=list(STAGES).index(stage)),
                    temperature=temperature,
                )
                for stage in models.policies
            ]
            measured = measure(models, self.judges, asked, said, temperature=temperature)
        return [
            Written(stage, models.text(ids), found)
            for stage, (ids, _), found in zip(models.policies, said, measured, strict=True)
        ]

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise RefusedError(503, "Too many questions are waiting for the models. Ask again in a moment.")
        try:
            with self._alone:
                yield
        finally:
            self._places.release()
