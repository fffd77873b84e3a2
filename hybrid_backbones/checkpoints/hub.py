"""Files of the Hugging Face hub, by huggingface_hub: its cache, its tokens, its offline mode, its `HF_ENDPOINT`."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from .errors import CheckpointError

HUB = 'hf-hub:'
# Names that weights have in a repository, whatever network they are of; the first that is there is taken.
SHARED_NAMES = ('model.safetensors', 'pytorch_model.bin')
_ADDRESS = re.compile(r'hf-hub:([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/(.+))?')


@dataclass(frozen=True)
class HubFile:
    """A file of a repository of the hub; '' as `file` for its weights, '' as `revision` for its newest."""

    repository: str
    file: str = ''
    revision: str = ''

    @classmethod
    def parse(cls, address: str) -> 'HubFile':
        """The file of `hf-hub:OWNER/NAME[@REVISION][/FILE]`.

        Raises:
            CheckpointError: Another form.
        """
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise CheckpointError(f'{address} is no file of the hub: expected {HUB}OWNER/NAME[@REVISION][/FILE]')
        repository, revision, file = match.groups(default='')
        return cls(repository, file, revision)

    @property
    def page(self) -> str:
        """The repository's page."""
        return f'https://huggingface.co/{self.repository}'

    def cached(self) -> Path | None:
        """Path in the hub's cache, None if it is not there."""
        from huggingface_hub import try_to_load_from_cache

        for name in self._names():
            path = try_to_load_from_cache(self.repository, name, revision=self.revision or None)
            if isinstance(path, str):
                return Path(path)
        return None

    def fetch(self) -> Path:
        """Path in the hub's cache, downloaded if need be.

        Raises:
            CheckpointError: No such repository or file; it asks for a token; it cannot be reached; or it cannot be
                written. Nothing incomplete takes the file's place.
        """
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        for name in self._names():
            try:
                return self._download(name)
            except LocalEntryNotFoundError as error:
                reason = str(error.__cause__ or error).splitlines()[0]
                raise CheckpointError(
                    f'{HUB}{self.repository}/{name} is not in the cache, and the hub cannot be reached: {reason}'
                ) from error
            except EntryNotFoundError:
                continue
        raise CheckpointError(f'{self.page} has no file {" or ".join(self._names())}')

    def _names(self) -> tuple[str, ...]:
        return (self.file,) if self.file else SHARED_NAMES

    def _download(self, name: str) -> Path:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            GatedRepoError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        try:
            endpoint = os.environ.get('HF_ENDPOINT')
            return Path(hf_hub_download(self.repository, name, revision=self.revision or None, endpoint=endpoint))
        except EntryNotFoundError:
            raise
        except GatedRepoError as error:
            raise CheckpointError(
                f'{self.page} asks for consent to its terms: give it there, and a token of that account by `hf auth '
                'login` or HF_TOKEN'
            ) from error
        except RepositoryNotFoundError as error:
            raise CheckpointError(
                f'the hub has no repository {self.repository}, or it is private: then give a token by `hf auth login` '
                'or HF_TOKEN'
            ) from error
        except RevisionNotFoundError as error:
            raise CheckpointError(f'{self.page} has no revision {self.revision}') from error
        except Exception as error:  # errors of the HTTP client, whose package depends on huggingface_hub's version
            raise CheckpointError(f'cannot get {HUB}{self.repository}/{name}: {error}') from error
