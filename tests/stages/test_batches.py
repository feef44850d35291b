"""How many pictures a batch takes where the settings leave it open, and what its pictures cost."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from PIL import Image

from capfilt.catalog import model_folder
from capfilt.med import memory
from capfilt.med.captioner import MEDCaptioner
from capfilt.med.config import MEDConfig
from capfilt.med.device import precision_of
from capfilt.med.filter import MEDFilter
from capfilt.med.pixels import Pictures, Seen, batch_of, to_uint8
from capfilt.roles import Writing
from capfilt.stages import worker
from capfilt.stages.config import CapFiltConfig
from capfilt.stages.worker import MOST, UNKNOWN, CapFiltWorker, batch_size_of


class Unknown(MEDFilter):
    """A filter that does not know what it takes."""

    def picture_bytes(self, texts: int) -> None:  # type: ignore[override]
        """Nothing is known."""


@pytest.fixture(scope="module")
def roles() -> tuple[MEDCaptioner, MEDFilter]:
    captioner = MEDCaptioner.load(model_folder("med-mini/captioner"), Writing())
    return captioner, MEDFilter.load(model_folder("med-mini/filter"))


def test_a_batch_is_the_largest_power_of_two_that_has_room(
    roles: tuple[MEDCaptioner, MEDFilter], monkeypatch: pytest.MonkeyPatch
) -> None:
    captioner, judge = roles
    config = CapFiltConfig()
    assert batch_size_of(config, captioner, judge, device="cpu") == MOST["cpu"]
    needed = max(captioner.picture_bytes(1), judge.picture_bytes(3))
    for room, size in ((11.9, 8), (8.0, 8), (7.9, 4), (0.1, 1)):
        monkeypatch.setattr(worker, "ROOM", int(room * needed) + 1)
        assert batch_size_of(config, captioner, judge, device="cpu") == size
        assert CapFiltWorker(config, captioner, judge).batch_size == size
    assert CapFiltWorker(dataclasses.replace(config, batch_size=5), captioner, judge).batch_size == 5
    monkeypatch.undo()
    assert batch_size_of(config, captioner, Unknown(judge.model), device="cpu") == UNKNOWN["cpu"]


def test_more_captions_beams_and_pixels_take_more_memory(roles: tuple[MEDCaptioner, MEDFilter]) -> None:
    captioner, judge = roles
    assert captioner.picture_bytes(8) > captioner.picture_bytes(1)
    assert MEDCaptioner(captioner.model, Writing(beams=3)).picture_bytes(1) == captioner.picture_bytes(3)
    assert judge.picture_bytes(9) > judge.picture_bytes(1)
    base = MEDConfig.load(model_folder("blip/base-224"))
    wide = dataclasses.replace(base, vision=dataclasses.replace(base.vision, image_size=384))
    small, large = (memory.captioned(c, 4, captions=1, max_length=20) for c in (base, wide))
    assert 2 < large / small < 3
    assert memory.captioned(base, 2, captions=1, max_length=20) < small


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="says what a CPU can do")
def test_auto_is_what_a_cpu_multiplies_in_and_names_are_taken_as_they_are() -> None:
    native = {"amx_bf16", "avx512_bf16"} & set(Path("/proc/cpuinfo").read_text().split())
    assert precision_of("auto", "cpu") == (torch.bfloat16 if native else torch.float32)
    assert [precision_of(name, "cpu") for name in ("bfloat16", "int8")] == [torch.bfloat16, torch.int8]


def test_models_of_one_size_share_a_batch() -> None:
    colours = ("red", "green", "blue")
    images = [Image.new("RGB", (50 + at, 40), colour) for at, colour in enumerate(colours)]
    ahead = Pictures([Seen(image, [32]) for image in images])
    cpu = torch.device("cpu")
    assert ahead.squares(32, cpu) is ahead.squares(32, cpu)
    assert torch.equal(ahead.squares(32, cpu), torch.stack([to_uint8(image, 32) for image in images]))
    assert torch.equal(batch_of(ahead, 32), batch_of(images, 32))
    with pytest.raises(ValueError, match="only squares of"):
        ahead.squares(64, cpu)
    with pytest.raises(ValueError, match="only squares of"):
        list(ahead)
    whole = Pictures.of(images)
    assert list(whole) == images
    assert whole[1:] == images[1:]
    assert len(whole) == 3
    assert Pictures.of(whole) is whole


def test_pictures_are_kept_whole_where_a_model_prepares_them_itself(roles: tuple[MEDCaptioner, MEDFilter]) -> None:
    captioner, judge = roles

    class Own(Unknown):
        image_size = None  # type: ignore[assignment]

    assert CapFiltWorker(CapFiltConfig(), captioner, judge).sizes == (captioner.image_size,)
    assert CapFiltWorker(CapFiltConfig(), captioner, Own(judge.model)).sizes == ()
    assert CapFiltWorker(CapFiltConfig(), None, judge).sizes == (judge.image_size,)
