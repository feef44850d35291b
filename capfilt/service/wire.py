"""What goes over the wire: requests and answers, as the OpenAPI shows them. The client reads them too.

Counts and lengths within a request are bounded here, once; sizes of bodies and pictures are settings. Knows pydantic;
knows no server.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_PICTURES = 64
"""Pictures a request."""
MAX_TEXTS = 32
"""Texts a picture."""
MAX_TEXT = 2000
"""Characters a text."""
MAX_URL = 2048
"""Characters a URL."""
MAX_ID = 128
"""Characters an id."""

Kind = Literal["caption", "score", "capfilt"]
Text = Annotated[str, Field(max_length=MAX_TEXT)]


class Strict(BaseModel):
    """A request: unknown fields are refused, so that a misspelt one is not passed over."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _either(one: str, other: str) -> dict[str, Any]:
    return {"required": [one], "properties": {one: {"type": "string"}, other: {"type": "null"}}}


class Picture(Strict):
    """A picture, in the request or at an address."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_either("image", "url"), _either("url", "image")]})

    image: str | None = Field(None, description="The encoded picture (JPEG, PNG, WebP, GIF, BMP, TIFF) in base64.")
    url: str | None = Field(None, max_length=MAX_URL, description="Where the picture is, http or https, public.")
    id: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_ID,
        description="Seeds the sampling: with the id of a ledger's row, that row's captions. Default: the picture.",
    )

    @model_validator(mode="after")
    def _one_place(self) -> Picture:
        if (self.image is None) == (self.url is None):
            raise ValueError("give either image or url")
        return self


class PictureWithTexts(Picture):
    """A picture and what is said of it."""

    texts: list[Text] = Field(default_factory=list, max_length=MAX_TEXTS, description="Texts to judge.")


class CaptionRequest(Strict):
    """Pictures to caption."""

    pictures: list[Picture] = Field(min_length=1, max_length=MAX_PICTURES)


class ScoreRequest(Strict):
    """Pictures whose texts are judged."""

    pictures: list[PictureWithTexts] = Field(min_length=1, max_length=MAX_PICTURES)


class CapFiltRequest(ScoreRequest):
    """Pictures to caption, whose own texts and captions are then judged."""


class Said(BaseModel):
    """A text of a picture, with what the filter says of it."""

    text: str
    origin: Literal["web", "synthetic"] = Field(description="`web`: it came with the request.")
    itm: float | None = Field(description="P(match), 0 to 1; null if no filter was asked or it knows none.")
    itc: float | None = Field(description="Cosine of picture and text, -1 to 1; null if no filter was asked.")
    kept: bool = Field(description="Whether the text fits; without a filter, whether there is a text at all.")


class Result(BaseModel):
    """What becomes of one picture: its captions, or the reason why it has none."""

    captions: list[Said]
    width: int | None = Field(description="Pixels, as it was read.")
    height: int | None = Field(description="Pixels, as it was read.")
    drop: str | None = Field(description="Null, or why the picture was dropped: a reason of the ledger.")
    detail: str | None = Field(description="The reason in a sentence.")


class Results(BaseModel):
    """One result for each picture, in order."""

    results: list[Result]


class Problem(BaseModel):
    """What is wrong with a request, and how to mend it."""

    what: str
    where: str = ""
    mend: str = ""


class Health(BaseModel):
    """How the service is."""

    status: Literal["ok", "starting", "failing"]
    detail: str = ""


class About(BaseModel):
    """What answers here."""

    version: str
    captioner: str | None
    filter: str | None
    threshold: float
    max_body_bytes: int
    max_pictures: int = MAX_PICTURES
    max_texts: int = MAX_TEXTS
