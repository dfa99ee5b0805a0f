"""Tensors to tensors: language models, models with one number per token, adapters."""
