"""Settings out of range are refused with the field's name and the mend."""

from __future__ import annotations

import pickle

import pytest

from capfilt.errors import RecipeError
from capfilt.fetch.config import FetchConfig
from capfilt.images import ImageLimits


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timeout_connect_s", 0),
        ("timeout_read_s", -1),
        ("timeout_total_s", float("nan")),
        ("concurrency", 0),
        ("per_host", 0),
        ("per_host_rate", -1),
        ("per_host_rate", float("inf")),
        ("opt_outs", ("noai, noindex",)),
        ("same_picture_max", -1),
        ("max_redirects", -1),
        ("retries", 11),
        ("retry_wait_s", -0.1),
        ("retry_after_max_s", -1),
        ("threads", 0),
        ("user_agent", ""),
        ("user_agent", "a\r\nX-Injected: b"),
        ("allow_addresses", ("localhost",)),
        ("allow_addresses", ("10.0.0.0/99",)),
    ],
)
def test_out_of_range(field, value):
    with pytest.raises(RecipeError) as caught:
        FetchConfig(**{field: value})
    assert caught.value.where == f"fetch.{field}"
    assert caught.value.mend.startswith("Give ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_bytes", 0),
        ("max_pixels", 0),
        ("max_pixels", 10**9),
        ("min_side", 0),
        ("max_aspect", 0.5),
        ("max_side", 8),
        ("quality", 0),
        ("quality", 101),
    ],
)
def test_image_limits_out_of_range(field, value):
    with pytest.raises(RecipeError) as caught:
        ImageLimits(**{field: value})
    assert caught.value.where == f"images.{field}"


@pytest.mark.parametrize(
    ("agent", "robot"),
    [("capfilt/0.1 (x)", "capfilt"), ("My-Crawler 2", "my-crawler"), ("Bot_x", "bot_x"), ("(nobody)", "capfilt")],
)
def test_the_name_of_the_robot_is_the_first_word_of_the_user_agent(agent, robot):
    config = FetchConfig(user_agent=agent)
    assert config.robot == robot
    assert config.robot_names == {robot, "capfilt"}


def test_it_pickles():
    config = FetchConfig(allow_addresses=("127.0.0.1/8",), images=ImageLimits(max_side=512))
    assert pickle.loads(pickle.dumps(config)) == config
