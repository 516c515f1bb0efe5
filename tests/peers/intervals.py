#!/usr/bin/env python3
"""Records what scipy and statsmodels say of intervals and tests: intervals.py > crates/report/tests/statistics.json. Needs numpy, scipy 1.17, statsmodels 0.14.

BCa is of other resamples than ours: those intervals agree as far as 50,000 resamples and 2,000 do.
"""
import json
import math
import random

import numpy
import scipy
import statsmodels
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

random.seed(7)
cases = {"made_by": {"scipy": scipy.__version__, "statsmodels": statsmodels.__version__, "numpy": numpy.__version__}}
cases["wilson"] = [
    {"successes": k, "n": n, "interval": list(proportion_confint(k, n, method="wilson"))} for n in (1, 2, 10, 60, 500) for k in sorted({0, 1, n // 3, n - 1, n}) if k <= n
]
cases["mcnemar"] = [
    {"wins": b, "losses": c, "p": float(mcnemar([[5, b], [c, 7]], exact=True).pvalue)} for b, c in [(0, 0), (1, 0), (0, 5), (10, 2), (3, 3), (40, 22), (300, 260)]
]
cases["holm"] = [{"p": p, "adjusted": [float(x) for x in multipletests(p, method="holm")[1]]} for p in
                 ([0.01, 0.04, 0.03, 0.005], [0.5], [0.9, 0.001, 0.001, 0.2, 0.04], [1.0, 1.0])]
differences = [[0.5, 0.2, -0.1, 0.4, 0.3], [0.25, -0.5, 0.75, 0.1, 0.1, -0.1, 0.3, 0.9, -0.2, 0.6], [0.1, -0.1], [round(random.uniform(-0.4, 0.6), 2) for _ in range(13)]]
cases["permutation"] = [
    {"differences": d, "p": float(stats.permutation_test((numpy.array(d),), lambda x, axis: numpy.mean(x, axis=axis), permutation_type="samples", vectorized=True,
                                                         n_resamples=10**6).pvalue)} for d in differences
]


def newcombe(a, b, c, d):
    """Method 10 of Newcombe 1998, term by term."""
    n = a + b + c + d
    p1, p2 = (a + b) / n, (a + c) / n
    (l1, u1), (l2, u2) = proportion_confint(a + b, n, method="wilson"), proportion_confint(a + c, n, method="wilson")
    under = (a + b) * (c + d) * (a + c) * (b + d)
    if under == 0:
        phi = 0
    else:
        over = a * d - b * c
        over = max(over - n / 2, 0) if over > 0 else over
        phi = over / math.sqrt(under)
    low = math.sqrt((p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2)
    high = math.sqrt((u1 - p1) ** 2 - 2 * phi * (u1 - p1) * (p2 - l2) + (p2 - l2) ** 2)
    return [p1 - p2 - low, p1 - p2 + high]


cases["newcombe"] = [{"counts": list(c), "interval": newcombe(*c)} for c in [(36, 12, 2, 10), (1, 3, 0, 50), (53, 0, 0, 1), (0, 0, 0, 10), (10, 0, 0, 0), (20, 5, 9, 26), (0, 30, 2, 0)]]
samples = [[[round(random.betavariate(0.4, 0.8), 2) for _ in range(40)]], [[random.choice([0.0, 0.5, 1.0]) for _ in range(25)], [round(random.random(), 2) for _ in range(60)]],
           [[0.0] * 18 + [1.0, 0.4]]]
cases["bca"] = []
for sample in samples:
    weight = 1 / len(sample)
    result = stats.bootstrap([numpy.array(s) for s in sample], lambda *x, axis: sum(weight * numpy.mean(s, axis=axis) for s in x), vectorized=True, method="BCa",
                             n_resamples=50_000, rng=numpy.random.default_rng(1))
    cases["bca"].append({"suites": sample, "interval": [float(result.confidence_interval.low), float(result.confidence_interval.high)]})
print(json.dumps(cases, indent=1))
