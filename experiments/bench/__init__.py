"""Benchmarks: speed and memory of training and translating, measured beside other people's programs.

`python -m experiments.bench --help` says what there is and what each figure means. Nothing here is needed to train.
"""
