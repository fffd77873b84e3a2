"""`hf-hub:` brings files of a hub, here a server of the test, and explains what keeps it from doing so."""

import hashlib
import io
import resource
import signal
import time
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save
from web_site import Site, running_site

from hybrid_backbones import create_classifier
from hybrid_backbones.checkpoints import CheckpointError, published, read_state_dict
from hybrid_backbones.checkpoints.download import record_of
from hybrid_backbones.checkpoints.published import Family, Published
from hybrid_backbones.checkpoints.sources import Source
from hybrid_backbones.zoo.publish import publish

COMMIT = 'a' * 40
WEIGHTS = save({'weight': torch.arange(4.0)})


class Hub:
    """What repositories of the hub hold."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def put(self, repository: str, file: str, body: bytes = WEIGHTS, **headers: str) -> None:
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        self._answer(repository, file, body, 200, ETag=etag, **headers)

    def refuse(self, repository: str, file: str, status: int, code: str) -> None:
        self._answer(repository, file, b'', status, X_Error_Code=code, X_Error_Message=code)

    def _answer(self, repository: str, file: str, body: bytes, status: int, **headers: str) -> None:
        for revision in ('main', COMMIT):
            path = f'/{repository}/resolve/{revision}/{file}'
            self.site.put(path, body, status, X_Repo_Commit=COMMIT, **headers)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """The hub's cache; torch.hub's folder is another one."""
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path / 'hf'))
    # Whatever the environment says.
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', False)
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'torch'))
    return tmp_path / 'hf'


@pytest.fixture
def hub(cache, monkeypatch):
    with running_site() as site:
        monkeypatch.setenv('HF_ENDPOINT', site.url)
        monkeypatch.setenv('no_proxy', '127.0.0.1')
        yield Hub(site)


def finished_files(cache: Path) -> list[Path]:
    return [path for path in cache.rglob('*') if path.is_file() and 'snapshots' in path.parts]


def weight(source: str) -> list[float]:
    return read_state_dict(source)[0]['weight'].tolist()


@pytest.mark.parametrize('address', ['hf-hub:me/net', 'hf-hub:me/net/model.safetensors', f'hf-hub:me/net@{COMMIT}'])
def test_a_file_is_fetched_once(hub, address):
    hub.put('me/net', 'model.safetensors')
    assert weight(address) == [0, 1, 2, 3]
    hub.site.pages.clear()  # now only the cache has it
    assert weight(address) == [0, 1, 2, 3]


def test_a_repository_without_safetensors_gives_its_pickle(hub):
    hub.refuse('me/net', 'model.safetensors', 404, 'EntryNotFound')
    content = io.BytesIO()
    torch.save({'weight': torch.ones(2)}, content)
    hub.put('me/net', 'pytorch_model.bin', content.getvalue())
    assert weight('hf-hub:me/net') == [1, 1]


REFUSALS = {
    'no repository': (404, 'RepoNotFound', r'no repository me/net, or it is private'),
    'no file': (404, 'EntryNotFound', r'huggingface\.co/me/net has no file x\.pth'),
    'no revision': (404, 'RevisionNotFound', r'has no revision'),
    'gated': (403, 'GatedRepo', r'asks for consent to its terms(.|\n)*HF_TOKEN'),
}


@pytest.mark.parametrize('refusal', REFUSALS)
def test_a_refusal_is_explained(hub, cache, refusal):
    status, code, message = REFUSALS[refusal]
    hub.refuse('me/net', 'x.pth', status, code)
    with pytest.raises(CheckpointError, match=message):
        read_state_dict('hf-hub:me/net/x.pth')
    assert not finished_files(cache)


@pytest.fixture
def no_waiting(monkeypatch) -> None:
    """huggingface_hub waits before it tries again, five times."""
    monkeypatch.setattr(time, 'sleep', lambda seconds: None)


def test_no_server_is_explained(cache, monkeypatch, no_waiting):
    with running_site() as site:
        monkeypatch.setenv('HF_ENDPOINT', site.url)
    with pytest.raises(CheckpointError, match='the hub cannot be reached'):
        read_state_dict('hf-hub:me/net/x.pth')


def test_offline_mode_is_kept(hub, monkeypatch):
    hub.put('me/net', 'x.pth')
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(CheckpointError, match='not in the cache, and the hub cannot be reached'):
        read_state_dict('hf-hub:me/net/x.pth')
    assert not hub.site.requests


def test_another_form_of_address_is_an_error():
    with pytest.raises(CheckpointError, match=r'expected hf-hub:OWNER/NAME'):
        read_state_dict('hf-hub:net')


# The index over several sources.


@pytest.fixture
def index(monkeypatch):
    def put(*sources: Source, licence: str = 'MIT') -> Published:
        row = Published('net', 'deit_t', {}, '-', 32, None, 10, 0, '', sources, 'X', licence, 'https://example.org')
        monkeypatch.setattr(published, 'families', lambda: (Family('X', licence, '', '', (row,)),))
        return row

    return put


def test_the_hub_comes_first_and_a_plain_address_where_it_fails(hub, index):
    plain = hub.site.put('/net.safetensors', save({'weight': torch.zeros(1)}))
    index(Source('hf-hub:me/net/model.safetensors'), Source(plain))
    hub.refuse('me/net', 'model.safetensors', 404, 'RepoNotFound')
    assert weight('hybrid://net') == [0]
    (Path(torch.hub.get_dir()) / 'checkpoints' / 'net.safetensors').unlink()
    hub.put('me/net', 'model.safetensors')
    assert weight('hybrid://net') == [0, 1, 2, 3]


def test_where_all_sources_fail_each_reason_and_place_is_named(hub, index):
    row = index(
        Source('hf-hub:me/net/model.safetensors'), Source(f'{hub.site.url}/net.pth'), Source('page:https://x.y/z.pth')
    )
    hub.refuse('me/net', 'model.safetensors', 403, 'GatedRepo')
    with pytest.raises(CheckpointError) as error:
        read_state_dict('hybrid://net')
    for part in ('consent', '404', 'open, in a browser, https://x.y/z.pth', *(str(s.place) for s in row.sources)):
        assert part in str(error.value)


def test_a_hub_file_put_by_hand_is_found(hub, index):
    row = index(Source('hf-hub:me/net/model.safetensors'))
    place = row.sources[0].place
    place.parent.mkdir(parents=True)
    place.write_bytes(WEIGHTS)
    assert weight('hybrid://net') == [0, 1, 2, 3]
    assert not hub.site.requests


def test_a_hub_file_of_another_hash_than_published_is_an_error(hub, index):
    index(Source('hf-hub:me/net/model.safetensors', sha256='0' * 8))
    hub.put('me/net', 'model.safetensors')
    with pytest.raises(CheckpointError, match='should have the published SHA-256 00000000'):
        read_state_dict('hybrid://net')


def test_a_hub_file_without_a_published_hash_is_held_to_the_first_use(hub, index, cache):
    row = index(Source('hf-hub:me/net/model.safetensors'))
    hub.put('me/net', 'model.safetensors')
    assert weight('hybrid://net') == weight('hybrid://net') == [0, 1, 2, 3]
    record = record_of(row.sources[0].place)
    assert hashlib.sha256(WEIGHTS).hexdigest() in record.read_text()
    assert not list(cache.rglob('*.json'))
    (file,) = finished_files(cache)
    file.resolve().write_bytes(save({'weight': torch.ones(4)}))
    with pytest.raises(CheckpointError, match=f'when it was first used(.|\n)*{record}'):
        weight('hybrid://net')
    record.unlink()
    assert weight('hybrid://net') == [1, 1, 1, 1]


def test_what_was_published_loads_from_the_hub_bit_for_bit(hub, tmp_path):
    network = create_classifier('deit_t', num_classes=7)
    torch.save(network.state_dict(), tmp_path / 'file.pth')
    publish(str(tmp_path / 'file.pth'), tmp_path / 'out', 'MIT')
    hub.put('me/net', 'model.safetensors', (tmp_path / 'out' / 'model.safetensors').read_bytes())
    again = create_classifier('deit_t', num_classes=7, checkpoint='hf-hub:me/net')
    assert all(torch.equal(again.state_dict()[key], value) for key, value in network.state_dict().items())


def test_an_interrupted_download_of_the_hub_leaves_no_file(hub, cache, no_waiting):
    hub.put('me/net', 'model.safetensors', Content_Length='1000000')
    with pytest.raises(CheckpointError, match=r'cannot get hf-hub:me/net/model\.safetensors: peer closed'):
        read_state_dict('hf-hub:me/net/model.safetensors')
    assert not finished_files(cache)


@pytest.mark.parametrize('kind', ['hub', 'plain'])
def test_a_disk_that_takes_no_more_is_an_error_and_leaves_nothing(hub, cache, kind):
    hub.put('me/net', 'model.safetensors', bytes(100_000))
    plain = hub.site.put('/net.pth', bytes(100_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(CheckpointError, match='File too large'):
            read_state_dict(plain if kind == 'plain' else 'hf-hub:me/net/model.safetensors')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert not finished_files(cache)
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    assert not folder.exists() or not list(folder.iterdir())


def test_a_licence_that_restricts_use_is_said_once(hub, index, caplog):
    from mmengine.logging import MMLogger

    MMLogger.get_instance('licence').addHandler(caplog.handler)
    index(Source('hf-hub:me/net/model.safetensors'), licence='CC-BY-NC-4.0')
    hub.put('me/net', 'model.safetensors')
    weight('hybrid://net')
    weight('hybrid://net')
    assert caplog.text.count('is under CC-BY-NC-4.0, which restricts its use; see https://example.org') == 1
