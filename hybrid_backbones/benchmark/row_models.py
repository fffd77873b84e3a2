"""The schema of a row of results, as pydantic models.

`hybrid-backbones transfer schema row` prints it as JSON schema.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, PositiveFloat, PositiveInt, StringConstraints, TypeAdapter

from .validation import Size, StrictModel

SCHEMA_VERSION: Literal[1] = 1

MetricName = Annotated[
    str, StringConstraints(pattern=r'^((box|mask)_AP(50|75|_S|_M|_L)?|mIoU(_ms)?|aAcc(_ms)?|mAcc(_ms)?)$')
]
Percent = Annotated[float, Field(ge=0, le=100)]
# In percent; `_ms`: several scales and flips.
Metrics = dict[MetricName, Percent]


class Environment(StrictModel):
    versions: dict[str, str]
    operators: str
    """where mmcv's compiled operators come from"""
    device: str
    precision: str
    threads: PositiveInt


class CostFields(StrictModel):
    size: Size
    parameters: int
    macs: int
    """multiply-adds that are executed for one image"""
    textbook_macs: int
    """multiply-adds by the papers' formulas"""
    activations: int


class SpeedFields(StrictModel):
    size: Size
    batch_size: int
    median_s: PositiveFloat
    """seconds of inference on one batch"""
    p10_s: float
    p90_s: float
    images_per_s: float
    iterations: int | None = None
    stable: bool | None = None
    """whether the confidence interval of the median is within 2 %"""
    peak_fraction: float | None = None
    """share of the rate that the machine reaches in matrix products"""
    peak_product: str | None = None
    """what computes them: torch.mm, oneDNN or NumPy; without it the row is older, and has a share of torch.mm's rate"""


class MemoryFields(StrictModel):
    inference_mib: float | None = None
    training_mib: float | None = None


class Weights(StrictModel):
    file: str
    loaded: Annotated[float, Field(ge=0, le=1)]
    """fraction of the backbone's parameters that the file filled"""


class Published(StrictModel):
    """What is quoted for the same backbone, framework, dataset and schedule."""

    metrics: Metrics
    source: str
    trust: str
    schedule: str
    difference: dict[str, float]
    """measured minus published, in points"""


class Fingerprint(StrictModel):
    """What `hybrid-backbones transfer verify` computes again, within minutes."""

    parameters: int
    macs: int
    """of the whole model, at the size of the spec"""
    device: Literal['cpu', 'cuda']
    losses: Annotated[list[FiniteFloat], Field(min_length=1)]
    """of the run's first iterations, at most 20"""
    confidences: list[FiniteFloat]
    """after these iterations, of at most 16 validation images: the highest score of a detector; the probability of a
    segmentor's likeliest class, the mean over the pixels"""


class RunIdentity(StrictModel):
    backbone: str
    options: dict[str, Any]
    """options of the backbone, over those that its name stands for"""
    framework: str
    dataset: str
    schedule: str
    tier: Literal['smoke', 'proxy', 'full']
    seed: int
    frozen: bool
    weights_sha256: str | None
    """null: from scratch"""
    config_sha256: str
    engine: str | None = None
    """what ran the exported file that was evaluated; null: PyTorch, without a file"""
    commit: str | None
    """of the code, with + for uncommitted changes; null: unknown"""


class ProfileIdentity(StrictModel):
    backbone: str
    options: dict[str, Any]
    framework: str | None
    """null: the backbone alone"""
    config_sha256: str | None
    """null: the backbone alone"""
    size: Size
    batch_size: PositiveInt
    precision: str
    engine: str | None = None
    """what ran the exported file; null: PyTorch, without a file"""
    commit: str | None


class _Row(StrictModel):
    schema_version: Annotated[Literal[1], Field(alias='schema')]
    id: Annotated[str, StringConstraints(pattern='^[0-9a-f]{16}$')]
    """digest of the identity without the commit"""
    origin: Literal['measured', 'converted', 'quoted']
    state: Literal['finished', 'failed', 'killed']
    reason: str | None
    """why it did not finish"""
    time: Annotated[str, StringConstraints(pattern=r'^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$')]
    """when it ended, UTC"""
    seconds: float | None = None
    """wall-clock time of the whole job"""
    environment: Environment
    cost: CostFields | None = None
    """of the whole model, or of the backbone where it was profiled alone"""
    backbone_cost: CostFields | None = None
    speed: SpeedFields | None = None
    memory: MemoryFields | None = None
    digest: str
    """of all other fields: an edited row is not accepted"""


class RunRow(_Row):
    """A training run with its evaluation."""

    record: Literal['run']
    identity: RunIdentity
    weights: Weights | None = None
    metrics: Metrics = {}
    intervals: dict[MetricName, tuple[Percent, Percent]] = {}
    """95 % intervals of metrics over the images, by bootstrapping"""
    images_sha256: str | None = None
    """of `images/ID.npz` in the results folder: per-image results of the metrics with intervals"""
    curves: dict[str, list[tuple[float, float]]] = {}
    """loss and metrics as [iteration, value]"""
    published: Published | None = None
    fingerprint: Fingerprint | None = None


class ProfileRow(_Row):
    """Cost, speed and memory of a backbone or a whole model at one size."""

    record: Literal['profile']
    identity: ProfileIdentity


ROW = TypeAdapter(Annotated[RunRow | ProfileRow, Field(discriminator='record')])
