"""How fast training and translating are, and how much memory they take, measured beside other people's programs.

`python -m experiments.bench --help` says what there is and what each figure means. Nothing here is needed to train.
"""
