#!/usr/bin/env python3
"""Cohorts of the MNIST work after the 20 rounds of cohorts_20x50.npy: 50 of 1,000 clients without replacement, drawn by
numpy's PCG64(20240607 + round), rounds counted from 0. One round per line, in the order of the draw.

The rule does not reproduce the file's own 20 rows (neither their order nor their sets), so those stay as they are and this
goes on from round 20.

    pip install numpy
    bench/cohorts.py > bench/cohorts_20_to_99.txt        # made with numpy 2.4
"""

import numpy

for number in range(20, 100):
    generator = numpy.random.Generator(numpy.random.PCG64(20240607 + number))
    print(*generator.choice(1000, 50, replace=False))
