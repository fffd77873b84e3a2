"""LogME: how well a linear model explains labels by features, without training one.

Paper: You et al., LogME: Practical Assessment of Pre-trained Models for Transfer Learning, ICML 2021 (arXiv
2102.11005), with the fixed-point iteration of its extension, arXiv 2110.10545. Official code:
https://github.com/thuml/LogME (MIT).

The model has weights with the prior N(0, 1/alpha) and labels with noise of the variance 1/beta. LogME is the logarithm
of the evidence p(y | features), maximised over alpha and beta and divided by the number of samples; of classes, each
against all others, it is the mean. Of the official code are kept its starting values, the constant 1e-5 in both
denominators and the stopping rule, so that the figures are the same for features of full column rank. Different:

- Directions without variance (more dimensions than samples, dead or repeated channels) cancel in the evidence, as in
  the official code of the ICML version. The official fixed-point code counts those that it drops in D but not in the
  determinant, so that noise scores higher the more dimensions it has.
- Classes are given as labels from 0 on of which some may be absent; these are left out, where the official code also
  averages over columns without a sample.
"""

import numpy as np

_STEPS = 11
_TOLERANCE = 1e-3
_EPSILON = 1e-5
# Singular values below this share of the largest are rounding errors of the decomposition.
_RANK_TOLERANCE = 1e-10


def logme(features: np.ndarray, labels: np.ndarray) -> float:
    """LogME of classes; higher is better, and only values for the same samples are comparable.

    Args:
        features: `(N, D)`.
        labels: Classes from 0 on, `(N,)`.

    Raises:
        ValueError: Shapes that do not fit, features that are not finite or all zero, or fewer than two classes.
    """
    features, labels = np.asarray(features, np.float64), np.asarray(labels)
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(f'expected features (N, D) and labels (N,), got {features.shape} and {labels.shape}')
    if not np.isfinite(features).all():
        raise ValueError('features have NaN or infinite values: check the weights and the precision of the backbone')
    if not features.any():
        raise ValueError('all features are zero, expected some that vary: check the weights of the backbone')
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(f'LogME compares classes, got {len(classes)} class in {len(labels)} samples')
    vectors, variances = _decompose(features)
    return float(np.mean([_evidence(vectors, variances, labels == k) for k in classes]))


def _decompose(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left singular vectors `(N, K)` and squared singular values `(K,)`, by the smaller of the two Gram matrices."""
    if len(features) <= features.shape[1]:
        vectors, values, _ = np.linalg.svd(features, full_matrices=False)
        return vectors, values**2
    squares, right = np.linalg.eigh(features.T @ features)
    kept = squares > squares[-1] * _RANK_TOLERANCE
    squares, right = squares[kept], right[:, kept]
    return features @ right / np.sqrt(squares), squares


def _evidence(vectors: np.ndarray, variances: np.ndarray, is_class: np.ndarray) -> float:
    """Logarithm of the evidence of one class against all others, by sample."""
    target = is_class.astype(np.float64)
    samples = len(target)
    projected = (vectors.T @ target) ** 2
    # Of the label, what lies outside the span of the features.
    outside = target @ target - projected.sum()
    alpha = beta = 1.0
    for _ in range(_STEPS):
        ratio = alpha / beta
        effective = (variances / (variances + ratio)).sum()
        weights = (variances * projected / (ratio + variances) ** 2).sum()
        residual = (projected / (1 + variances / ratio) ** 2).sum() + outside
        alpha = effective / (weights + _EPSILON)
        beta = (samples - effective) / (residual + _EPSILON)
        if abs(alpha / beta - ratio) / ratio <= _TOLERANCE:
            break
    # Directions without variance add log(alpha) to both the prior and the determinant, hence the rank in place of D.
    evidence = len(variances) * np.log(alpha) + samples * np.log(beta) - np.log(alpha + beta * variances).sum()
    evidence -= beta * residual + alpha * weights + samples * np.log(2 * np.pi)
    return evidence / 2 / samples
