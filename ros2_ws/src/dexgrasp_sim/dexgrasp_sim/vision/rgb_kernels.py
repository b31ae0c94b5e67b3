"""The changes of `rgb_changes` as compiled loops for the CPU.

Change `rgb_tensors` in the same way: tests compare both.
"""

import numpy as np

from dexgrasp_sim.kernels import inline, kernel
from dexgrasp_sim.vision.random_kernels import SOURCES, normal, word


@kernel
def augment(
    images: np.ndarray,
    keys: np.ndarray,
    weights: np.ndarray,
    matrices: np.ndarray,
    curves: np.ndarray,
    read_noise: float,
    shot_noise: float,
    sources: int = SOURCES,
) -> None:
    """Blurs, recolours and adds noise to n environments' images in place.

    Args:
        images: [n, V, 3, H, W] uint8, C-contiguous; V views of the same scene.
        keys: [n] uint64, random streams of the noise.
        weights: [n, K, K] float32, blur kernel with K odd; K = 1 for none.
        matrices: [n, 3, 4] float32, see `RgbChanges`.
        curves: [n, C] float32, see `RgbChanges`.
        read_noise: See `RgbChanges`.
        shot_noise: See `RgbChanges`.
        sources: See `SOURCES`.
    """
    views, _, height, width = images.shape[1:]
    radius = weights.shape[1] // 2
    sharp = np.empty((3, height + 2 * radius, width + 2 * radius), np.float32)
    blurred = np.empty((3, height, width), np.float32)
    for index in range(len(images)):
        for view in range(views):
            image = images[index, view]
            _pad(image, radius, sharp)
            _blur(sharp, weights[index], blurred)
            _recolour(
                blurred,
                matrices[index],
                curves[index],
                keys[index],
                view * height * width * 3,
                (read_noise**2, shot_noise**2),
                image,
            )


@inline
def _pad(image: np.ndarray, margin: int, out: np.ndarray) -> None:
    """Copies an image and pads it with the nearest pixels of its border."""
    _, height, width = image.shape
    for channel in range(3):
        for row in range(height + 2 * margin):
            source = image[channel, min(max(row - margin, 0), height - 1)]
            for column in range(width + 2 * margin):
                out[channel, row, column] = source[min(max(column - margin, 0), width - 1)]


@inline
def _blur(padded: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """Convolves a padded image with a blur kernel."""
    _, height, width = out.shape
    out[:] = 0
    for down in range(len(weights)):
        for right in range(len(weights)):
            weight = weights[down, right]
            if weight == 0:
                continue
            for channel in range(3):
                for row in range(height):
                    for column in range(width):
                        out[channel, row, column] += (
                            weight * padded[channel, row + down, column + right]
                        )


@inline
def _recolour(
    image: np.ndarray,
    matrix: np.ndarray,
    curve: np.ndarray,
    key: np.uint64,
    first_number: int,
    variances: tuple[float, float],
    out: np.ndarray,
) -> None:
    _, height, width = image.shape
    noisy = variances[0] + variances[1] > 0
    number = first_number
    for row in range(height):
        for column in range(width):
            red, green, blue = (
                image[0, row, column] / np.float32(255),
                image[1, row, column] / np.float32(255),
                image[2, row, column] / np.float32(255),
            )
            for channel in range(3):
                weight = matrix[channel]
                level = weight[0] * red + weight[1] * green + weight[2] * blue + weight[3]
                level = 255 * _on_curve(curve, level)
                if noisy:
                    deviation = np.sqrt(variances[0] + variances[1] * level / 255)
                    level += deviation * normal(word(key, number))
                    number += 1
                out[channel, row, column] = np.uint8(min(max(level + 0.5, 0.0), 255.0))


@inline
def _on_curve(curve: np.ndarray, level: float) -> float:
    """The curve at a level, which is limited to [0, 1]; linear between its points."""
    place = min(max(level, 0.0), 1.0) * (len(curve) - 1)
    left = min(int(place), len(curve) - 2)
    return curve[left] + (place - left) * (curve[left + 1] - curve[left])
