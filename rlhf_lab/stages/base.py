"""Step 0 of the embedded default: a tokenizer and a base model of its small world, made in seconds.

Real runs skip this and name a pretrained model. The text is generated from the seed; the BPE is saved in GPT-2's own
format (vocab.json, merges.txt), so that plain transformers loads the folder.
"""

from pathlib import Path

from datasets import Dataset
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Tokenizer, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from rlhf_lab.config import Experiment, SFTSection
from rlhf_lab.data.assistant.demonstrators import demonstrations, sentences, told
from rlhf_lab.models.language import PAD_TOKEN, load_causal_lm
from rlhf_lab.stages.sft import fit_language_model

EOS_TOKEN = "<|endoftext|>"


def make_tokenizer(experiment: Experiment, folder: Path) -> PreTrainedTokenizerBase:
    """Train a byte-level BPE on the world's text and save it to `folder`."""
    written = demonstrations(300, seed=experiment.seed)
    # Mostly facts, each told equally often: their words are what has to be one token each.
    texts = [row["prompt"] + row["completion"] for row in written] + told()
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        texts, vocab_size=experiment.model.vocab_size, special_tokens=[EOS_TOKEN, PAD_TOKEN], show_progress=False
    )
    folder.mkdir(parents=True, exist_ok=True)
    bpe.save_model(str(folder))
    tokenizer = GPT2Tokenizer(
        vocab=str(folder / "vocab.json"),
        merges=str(folder / "merges.txt"),
        bos_token=EOS_TOKEN,
        eos_token=EOS_TOKEN,
        unk_token=EOS_TOKEN,
        pad_token=PAD_TOKEN,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def pretrain_base(experiment: Experiment, folder: Path) -> dict[str, float]:
    """Pretrain a small GPT-2 on plain sentences and save it to `folder`; returns its held-out loss."""
    settings = experiment.model.pretraining
    set_seed(experiment.seed)
    tokenizer = make_tokenizer(experiment, folder)
    model: PreTrainedModel = load_causal_lm("gpt2", tokenizer, config=experiment.model.config, init="random")
    context = model.config.max_position_embeddings
    told = sentences(settings.num_rows, seed=experiment.seed)
    rows = [{"input_ids": ids[:context], "labels": ids[:context]} for ids in tokenizer(told)["input_ids"]]
    num_heldout = max(1, len(rows) // 50)
    section = SFTSection(
        learning_rate=settings.learning_rate,
        num_epochs=settings.num_epochs,
        batch_size=settings.batch_size,
        micro_batch_size=settings.batch_size,
        warmup_steps=20,
        logging_steps=20,
        eval_steps=0,
        save_steps=0,
        bf16=settings.bf16,
    )
    return fit_language_model(
        model,
        tokenizer,
        Dataset.from_list(rows[num_heldout:]),
        Dataset.from_list(rows[:num_heldout]),
        section=section,
        folder=folder,
        seed=experiment.seed,
        report_to=[],
        stage="base",
    )
