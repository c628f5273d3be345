"""Repeat factors, the arithmetic of repeat factor sampling (RFS)."""

import numpy as np


def repeat_factors(
    image_index: np.ndarray,
    class_index: np.ndarray,
    class_frequency: np.ndarray,
    num_images: int,
    oversample_thr: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute r(c), (C,), and r(I), (N,): showings per epoch, 1 or more.

    r(c) = max(1, sqrt(t / f(c))), and r(I) is the largest r(c) of the classes
    in I, 1 without a class (Gupta et al., LVIS: A Dataset for Large
    Vocabulary Instance Segmentation, CVPR 2019).

    Args:
        image_index (np.ndarray): The images of P pairs of an image and a
            class in it, (P,), no pair twice.
        class_index (np.ndarray): The classes of the pairs, (P,), in [0, C).
        class_frequency (np.ndarray): f(c), (C,). 0 is allowed for a class
            without an image; its r(c) is infinite.
        num_images (int): N, annotated or not.
        oversample_thr (float): t, in (0, 1].
    """
    t = oversample_thr
    f = class_frequency  # (C,)
    with np.errstate(divide='ignore'):
        r_class = np.maximum(1, np.sqrt(t / f))  # (C,)
    r_image = np.ones(num_images)  # (N,)
    np.maximum.at(r_image, image_index, r_class[class_index])
    return r_class, r_image
