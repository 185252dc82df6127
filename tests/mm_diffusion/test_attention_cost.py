"""Windows cost in proportion to the clip, whole clips to its square."""

import pytest

from foley_jax.mm_diffusion.models import attention_cost


@pytest.mark.slow
@pytest.mark.parametrize("level", attention_cost.PAPER)
def test_windows_grow_with_the_clip_and_whole_clips_with_its_square(level):
    windowed = [attention_cost.cost(level, f, level.window) for f in (16, 32)]
    whole = [attention_cost.cost(level, f, f) for f in (16, 32)]
    assert windowed[1].flops / windowed[0].flops == pytest.approx(2, rel=0.01)
    assert whole[1].flops / whole[0].flops == pytest.approx(4, rel=0.01)
    assert windowed[1].bytes / windowed[0].bytes == pytest.approx(2, rel=0.05)
    # two products in each direction, of every query with the keys of its window
    pairs = 2 * 16 * level.side**2 * level.per_frame * level.window
    assert windowed[0].flops == pytest.approx(2 * 2 * pairs * level.channels, rel=0.03)


def test_the_table_and_its_ratios(capsys):
    attention_cost.main(["--frames", "16"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[1] for row in rows[1:]] == ["32x32", "16x16", "8x8"]
    assert [float(row[5]) for row in rows[1:]] == [16.0, 4.0, 2.0]  # frames / window


def test_clips_shorter_than_a_window_are_refused(capsys):
    with pytest.raises(SystemExit):
        attention_cost.main(["--frames", "4"])
    assert "at least 8" in capsys.readouterr().err
