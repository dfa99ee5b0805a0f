"""Trainings beside a run that say what it is worth: sweeps over KL weights, learning curves, ensembles."""
