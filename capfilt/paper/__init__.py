"""The paper's tables at a scale that fits the machine at hand: arms, seeds, and what they come to.

Knows the other jobs (training, bootstrap, measures) and what is compared in each table; knows no command line.
"""
