"""TensorFlow checkpoints without TensorFlow: the variables of a `NAME.index` file and the data files beside it.

The format is that of `tensorflow/core/util/tensor_bundle` (Apache-2.0): the index is a table of LevelDB's, sorted keys
in blocks, whose values are protocol buffers that say where in the data files the bytes of a variable lie.
"""

import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

# DataType of tensorflow/core/framework/types.proto: float32, float64, int32, int64, float16.
_DTYPES = {1: '<f4', 2: '<f8', 3: '<i4', 9: '<i8', 19: '<f2'}
_FOOTER_BYTES = 48
_MAGIC = 0xDB4775248B80FB57
# Of a block: a byte for its compression, and a checksum.
_TRAILER_BYTES = 5


def read_archive(path: Path) -> dict[str, Tensor]:
    """Variables by name of a checkpoint in a `.tar.gz`, as published.

    Raises:
        ValueError: The archive holds no checkpoint, or more than one.
        tarfile.TarError, EOFError: It is damaged.
    """
    with tempfile.TemporaryDirectory() as folder, tarfile.open(path) as archive:
        for member in archive:
            # By base name: nothing is written outside the folder, whatever the archive calls it.
            if not member.isfile() or not ('.data-' in member.name or member.name.endswith('.index')):
                continue
            source = archive.extractfile(member)
            assert source is not None  # for a type checker: regular files have contents
            with source, Path(folder, Path(member.name).name).open('wb') as copy:
                shutil.copyfileobj(source, copy)
        indices = list(Path(folder).glob('*.index'))
        if len(indices) != 1:
            raise ValueError(f'{len(indices)} TensorFlow checkpoints in the archive, expected one')
        return read_bundle(indices[0])


def read_bundle(index: Path) -> dict[str, Tensor]:
    """Numeric variables of a TensorFlow checkpoint by name.

    Args:
        index: `NAME.index`; `NAME.data-00000-of-00001` and its like lie beside it.

    Raises:
        ValueError: Not an index, or compressed, or data that the index does not fit.
        OSError: A data file is not there.
    """
    entries = dict(_entries(index.read_bytes()))
    header = dict(_fields(entries.pop(b'')))
    shards = header.get(1, 1)
    variables = {}
    for key, value in entries.items():
        fields = dict(_fields(value))
        if fields.get(1) in _DTYPES and 7 not in fields:  # 7: slices of a partitioned variable
            data = index.with_name(f'{index.stem}.data-{fields.get(3, 0):05d}-of-{shards:05d}')
            variables[key.decode()] = _tensor(data, fields)
    return variables


def _tensor(data: Path, fields: dict[int, Any]) -> Tensor:
    """The variable that an entry describes: 1 type, 2 shape, 4 offset, 5 size in bytes."""
    shape = [dict(_fields(dim)).get(1, 0) for number, dim in _fields(fields.get(2, b'')) if number == 2]
    dtype = np.dtype(_DTYPES[fields[1]])
    count = fields.get(5, 0) // dtype.itemsize
    values = np.fromfile(data, dtype, count, offset=fields.get(4, 0))
    if len(values) != count or count != int(np.prod(shape)):
        raise ValueError(f'{data.name} has {len(values)} numbers where the index has a shape of {shape}: cut short')
    return torch.from_numpy(values.reshape(shape))


def _entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a LevelDB table: a block whose values say where the blocks of entries are."""
    footer = table[-_FOOTER_BYTES:]
    if len(footer) < _FOOTER_BYTES or int.from_bytes(footer[-8:], 'little') != _MAGIC:
        raise ValueError('not the index of a TensorFlow checkpoint, or cut short')
    _, position = _handle(footer, 0)  # of the block of meta-data
    (start, size), _ = _handle(footer, position)
    for _, handle in _block(table, start, size):
        yield from _block(table, *_handle(handle, 0)[0])


def _handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Start and size of a block, and where in `data` reading ended."""
    start, position = _varint(data, position)
    size, position = _varint(data, position)
    return (start, size), position


def _block(table: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Entries of a block; each key is stored without the prefix that it shares with the one before."""
    block, kind = table[start : start + size], table[start + size : start + size + 1]
    if kind != b'\0':
        raise ValueError('the index is compressed, or cut short')
    # The block ends with the offsets of its uncompressed keys, four bytes each, and their number.
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], 'little')
    position, key = 0, b''
    while position < end:
        shared, position = _varint(block, position)
        own, position = _varint(block, position)
        length, position = _varint(block, position)
        key = key[:shared] + block[position : position + own]
        position += own
        yield key, block[position : position + length]
        position += length


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values, integers or bytes, of the fields of a protocol buffer."""
    position = 0
    while position < len(message):
        value: int | bytes
        tag, position = _varint(message, position)
        kind, size = tag & 7, {1: 8, 5: 4}.get(tag & 7, 0)
        if kind == 0:
            value, position = _varint(message, position)
        else:
            if kind == 2:
                size, position = _varint(message, position)
            value, position = message[position : position + size], position + size
        yield tag >> 3, value


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """An integer of seven bits a byte, least first, and where it ended."""
    value, shift = 0, 0
    while True:
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
