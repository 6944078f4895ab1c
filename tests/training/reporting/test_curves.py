import matplotlib.image

from keras_preact.training.reporting import curves
from keras_preact.training.reporting.metrics_file import Row


def rows(count):
    return [
        Row(10 * n, n, 2 / n, 1 - 0.5 / n, 1 / n, 1 - 0.3 / n, 0.1, 100.0, 1.0 * n)
        for n in range(1, count + 1)
    ]


def test_the_picture_shows_both_curves_in_their_colours(tmp_path):
    curves.plot(rows(5), "a title", tmp_path / "curves.png", drop_steps=(30,))
    picture = matplotlib.image.imread(tmp_path / "curves.png")[..., :3]
    assert picture.shape[0] > 300 and picture.shape[1] > 800
    for color in (curves.TRAIN_COLOR, curves.EVAL_COLOR):
        rgb = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert (abs(picture - rgb).max(axis=-1) < 0.01).sum() > 200
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_a_single_row_can_be_drawn(tmp_path):
    curves.plot(rows(1), "a title", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5_000
