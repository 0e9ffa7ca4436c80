import io

import numpy as np
from matplotlib.image import imread

from flows.summary import darkness, png


def test_a_picture_holds_its_pixels():
    grey = np.random.default_rng(0).integers(0, 256, (3, 5), dtype=np.uint8)
    assert np.array_equal(np.round(255 * imread(io.BytesIO(png(grey)))), grey)


def test_high_and_loud_is_dark_and_at_the_top():
    log_mel = np.array([[0, 0], [0, 5]], dtype=np.float16)
    assert np.array_equal(darkness(log_mel)[::2, ::2], [[255, 0], [255, 255]])


def test_silence_can_be_drawn():
    assert (darkness(np.zeros((2, 3), dtype=np.float16)) == 255).all()
