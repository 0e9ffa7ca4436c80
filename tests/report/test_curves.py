import numpy as np

from matpac.report.curves import thinned


def test_long_curves_are_thinned_to_means_of_neighbors():
    assert thinned(np.array([1.0, 3.0])).tolist() == [1.0, 3.0]
    assert thinned(np.arange(800.0))[:3].tolist() == [0.5, 2.5, 4.5]
