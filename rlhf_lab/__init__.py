"""Three-step RLHF for language models: supervised fine-tuning, a reward model, and our own PPO.

`PPOTrainer` and `PPOConfig` are loaded when they are first asked for, so `import rlhf_lab` is instant and needs
neither torch nor transformers.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlhf_lab.ppo_config import PPOConfig
    from rlhf_lab.stages.ppo import PPOTrainer

__version__ = "0.1.0"

__all__ = ["PPOConfig", "PPOTrainer", "__version__"]


def __getattr__(name: str) -> Any:
    # Written out name by name, so that a reader and a search find the import.
    if name == "PPOConfig":
        from rlhf_lab.ppo_config import PPOConfig

        return PPOConfig
    if name == "PPOTrainer":
        from rlhf_lab.stages.ppo import PPOTrainer

        return PPOTrainer
    raise AttributeError(f"module 'rlhf_lab' has no attribute {name!r}; it exports {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
