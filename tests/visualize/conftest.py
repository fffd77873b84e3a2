"""An image like a photograph: smooth, noisy, of muted colours, with odd sides."""

from pathlib import Path

import cv2
import numpy as np
import pytest


@pytest.fixture(scope='session')
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(0)
    coarse = random.uniform(60, 180, (6, 9, 3)).astype(np.float32)
    image = cv2.resize(coarse, (321, 213), interpolation=cv2.INTER_CUBIC) + random.normal(0, 4, (213, 321, 3))
    path = tmp_path_factory.mktemp('photo') / 'photo.jpg'
    cv2.imwrite(str(path), image.clip(0, 255).astype(np.uint8))
    return path
