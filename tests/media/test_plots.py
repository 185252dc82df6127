"""The contact sheet: what is drawn where, and what is refused."""

from matplotlib import image
import numpy as np
import pytest

from foley_jax.media import plots

RATE_HZ = 8000
WHITE = np.full((4, 8, 8, 3), 255, np.uint8)


def _row(frames, audio=None, marks=None):
    audio = np.zeros(3200, np.float32) if audio is None else audio
    return plots.SheetRow(frames, audio, RATE_HZ, 10.0, "clip", marks or {})


def _count(path, condition):
    """Pixels of a PNG whose (red, green, blue) in [0, 1] satisfy a condition."""
    return int(condition(*np.moveaxis(image.imread(path)[..., :3], -1, 0)).sum())


def test_sheet_shows_the_frames_in_order(tmp_path):
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    frames[0, ..., 0] = frames[1, ..., 2] = 255  # red, then blue
    plots.save_contact_sheet(tmp_path / "s.png", [_row(frames)])
    red, _, blue = np.moveaxis(image.imread(tmp_path / "s.png")[..., :3], -1, 0)
    is_red, is_blue = (red > 0.99) & (blue < 0.01), (blue > 0.99) & (red < 0.01)
    assert is_red.sum() > 5000 and is_blue.sum() > 5000
    assert np.nonzero(is_red)[1].max() < np.nonzero(is_blue)[1].min()


def test_long_clips_show_evenly_chosen_frames(tmp_path):
    frames = np.zeros((4 * plots.SHOWN_FRAMES, 8, 8, 3), np.uint8)
    frames[::4, ..., 0] = 255  # those that are chosen
    frames[1::4, ..., 2] = 255
    plots.save_contact_sheet(tmp_path / "s.png", [_row(frames)])
    assert _count(tmp_path / "s.png", lambda r, g, b: (r > 0.99) & (b < 0.01)) > 10000
    assert _count(tmp_path / "s.png", lambda r, g, b: (b > 0.99) & (r < 0.01)) == 0


def test_marks_and_audio_are_drawn_only_where_given(tmp_path):
    tone = np.sin(np.arange(3200) * 0.5).astype(np.float32)

    def reddish(r, g, b):
        return (r > 0.7) & (g < 0.4) & (b < 0.4)

    def bluish(r, g, b):
        return (b > 0.6) & (r < 0.5) & (g < 0.7)

    plots.save_contact_sheet(tmp_path / "bare.png", [_row(WHITE)])
    plots.save_contact_sheet(tmp_path / "full.png", [_row(WHITE, tone, {"impacts": [0.1, 0.2]})])
    assert _count(tmp_path / "bare.png", reddish) == 0
    assert _count(tmp_path / "full.png", reddish) > 50
    bare = _count(tmp_path / "bare.png", bluish)
    assert _count(tmp_path / "full.png", bluish) > 5 * max(bare, 1)


def test_int16_audio_and_float_audio_draw_alike(tmp_path):
    tone = (np.sin(np.arange(3200) * 0.1) * 16384).astype(np.int16)
    plots.save_contact_sheet(tmp_path / "a.png", [_row(WHITE, tone)])
    plots.save_contact_sheet(tmp_path / "b.png", [_row(WHITE, tone.astype(np.float32) / 32768)])
    np.testing.assert_array_equal(
        image.imread(tmp_path / "a.png"), image.imread(tmp_path / "b.png")
    )


def test_wrong_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no clips"):
        plots.save_contact_sheet(tmp_path / "s.png", [])
    with pytest.raises(ValueError, match="wanted uint8"):
        _row(WHITE.astype(np.float32))
    with pytest.raises(ValueError, match="mono"):
        _row(WHITE, np.zeros((100, 2), np.float32))
