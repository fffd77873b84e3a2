"""Is a model measured on images that it was not trained on?"""

from collections.abc import Iterator

from .findings import WARNING, Finding
from .images import list_images
from .view import DatasetView, DataView


def check_splits(data: DataView) -> Iterator[Finding]:
    """Findings about images of the validation set that are training images too."""
    trained = {path for dataset in data.datasets if dataset.split == 'train' for path in _paths(dataset)}
    for dataset in data.datasets:
        if dataset.split != 'val' or not trained:
            continue
        paths = _paths(dataset)
        shared = [path for path in paths if path in trained]
        if shared:
            yield Finding(
                WARNING,
                'validation-trained-on',
                str(dataset.ann_file or dataset.folders.get('img_path') or dataset.root),
                'images of the validation set are training images too',
                record=shared[0],
                key=dataset.where,
                count=len(shared),
                total=len(paths),
                consequence='The score says how well they are remembered.',
                remedy='keep them apart: hybrid-backbones new-config makes splits without copies in both',
            )


def _paths(dataset: DatasetView) -> list[str]:
    count, record = list_images(dataset)
    return [str(record(i).path) for i in range(count)]
