"""The goldens are complete, and one that is missing fails."""

import pytest
from goldens import FOLDER, Golden, golden_file


@pytest.mark.parametrize('suffix', ['json', 'npz'])
def test_a_missing_golden_is_an_error_that_names_the_file(suffix):
    with pytest.raises(FileNotFoundError, match=rf'golden networks/absent_224\.{suffix} is missing from .*goldens'):
        golden_file('networks', f'absent_224.{suffix}')
    with pytest.raises(FileNotFoundError, match=r'golden networks/absent_224\.json is missing'):
        Golden('absent_224')


def test_every_case_has_metadata_and_samples():
    metadata = {path.stem for path in (FOLDER / 'networks').glob('*.json')}
    assert metadata == {path.stem for path in (FOLDER / 'networks').glob('*.npz')}
    assert len(metadata) == 52


def test_small_layer_scales_follow_their_own_rule():
    """`state_dict` compares the sum of all weights with the recorded one, so a wrong rule cannot pass."""
    state = Golden('moganet_xt_224x224').state_dict()  # the one family with `gamma_small`
    small = [value for key, value in state.items() if key.endswith(('layer_scale_1', 'layer_scale_2'))]
    assert small
    assert all(0 < value.mean() < 0.1 for value in small)
