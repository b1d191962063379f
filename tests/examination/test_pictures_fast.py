"""The short cuts for grey frames and captions give what the long ways give, bit for bit."""

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from echocare_hf.curation.region import _grown
from echocare_hf.data.reading import open_ultrasound
from echocare_hf.drawing_stamps import stamp_text
from echocare_hf.drawing_style import text_font
from echocare_hf.examination.clip_video import ClipVideo
from echocare_hf.examination.models import LoadedModel, load_model
from echocare_hf.examination.overlays import Style, clip_picture
from echocare_hf.examination.region import Region
from echocare_hf.examination.results import Ellipse, FrameResult, Label

HEIGHT, WIDTH = 60, 90


@pytest.fixture
def speckle():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), np.uint8)


def three(grey):
    return np.stack([grey] * 3, -1)


@pytest.mark.parametrize("text", ["abdomen -> liver 0.87", "no region is likely", "jTgy", "a  b", "CTR 48.9 %"])
@pytest.mark.parametrize("size", [12, 19])
@pytest.mark.parametrize("place", [(9, 9), (-3, 50), (60, 2)])
def test_a_stamped_line_is_that_of_pillow(speckle, text, size, place):
    expected = Image.fromarray(three(speckle))
    ImageDraw.Draw(expected).text(place, text, (255, 255, 255), text_font(size), stroke_width=1, stroke_fill=(0, 0, 0))
    colour, grey = Image.fromarray(three(speckle)), Image.fromarray(speckle.copy())
    stamp_text(colour, place, text, size)
    stamp_text(grey, place, text, size)
    np.testing.assert_array_equal(np.asarray(colour), np.asarray(expected))
    np.testing.assert_array_equal(np.asarray(grey.convert("RGB")), np.asarray(expected))


def test_a_grey_frame_is_resized_like_one_of_three_equal_channels(speckle):
    model = load_model("echocare-tiny")
    assert isinstance(model, LoadedModel)
    np.testing.assert_array_equal(model.resize(speckle).numpy(), model.resize(three(speckle)).numpy())


@pytest.mark.parametrize("masked", [False, True])
def test_the_grey_region_is_a_channel_of_the_region(speckle, masked):
    mask = np.tri(40, 50, dtype=bool) if masked else None
    region = Region(HEIGHT, WIDTH, (10, 5, 60, 45), mask)
    grey = region.grey_crop(three(speckle))
    np.testing.assert_array_equal(three(grey), region.crop(three(speckle)))
    for channel in range(3):
        frame = three(speckle)
        frame[0, 0, channel] ^= 1  # around the region
        assert region.grey_crop(frame) is not None
        frame[43, 12, channel] ^= 1
        assert region.grey_crop(frame) is None


def test_a_grey_clip_has_the_pictures_of_one_of_three_equal_channels(tmp_path, speckle):
    style = Style({}, {}, 0.5)
    videos = []
    for name, frame in (("grey", speckle), ("colour", three(speckle))):
        with ClipVideo(tmp_path / f"{name}.mp4", (WIDTH, HEIGHT)) as video:
            for index in range(3):
                found = FrameResult(index, None, anatomy={"m": (Label("liver", 0.8 + index / 100, None, ("liver",)),)})
                picture = clip_picture(np.roll(frame, index, 0), found, style, video.size)
                assert picture.mode == ("L" if name == "grey" else "RGB")
                video.add(index, None, picture)
            video.close()
        with av.open(str(video.path)) as container:
            videos.append([frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)])
    assert len(videos[0]) == 3
    np.testing.assert_array_equal(*videos)


def test_findings_on_a_grey_frame_are_drawn_in_colour(speckle):
    found = FrameResult(0, None, ellipses={"m": (Ellipse("head", 0.9, 45, 30, 40, 20, 10),)})
    pictures = [clip_picture(frame, found, Style({}, {}, 0.5), (90, 60)) for frame in (speckle, three(speckle))]
    np.testing.assert_array_equal(*map(np.asarray, pictures))
    assert np.ptp(np.asarray(pictures[0]).astype(int), axis=2).max() > 50


def test_growing_is_a_maximum_over_a_square():
    random = np.random.default_rng(2)
    for reach in (1, 2, 3):
        for shape in ((40, 30), (1, 5), (2, 2)):
            mask = random.random(shape) < 0.1
            expected = ndimage.maximum_filter(mask.view(np.uint8), 2 * reach + 1, mode="nearest")
            np.testing.assert_array_equal(_grown(mask, reach), expected.astype(bool))


def test_a_png_is_decoded_once_and_can_be_read_again(tmp_path, speckle, monkeypatch):
    Image.fromarray(speckle).save(tmp_path / "image.png")
    loads = []
    decode = Image.Image.convert
    monkeypatch.setattr(
        Image.Image, "convert", lambda self, *args, **kw: (loads.append(1), decode(self, *args, **kw))[1]
    )
    with open_ultrasound(tmp_path / "image.png") as source:
        first = [frame.pixels for frame in source]
        assert len(loads) == 1
        again = [frame.pixels for frame in source]
    for frames in (first, again):
        np.testing.assert_array_equal(np.stack(frames), three(speckle)[None])
