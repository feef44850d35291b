"""Any kind of pixel as plain 8-bit RGB: palettes, deep and float grey, CMYK, transparency, colour profiles.

Knows PIL and numpy; knows no files and no limits.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageCms


def resampable(image: Image.Image) -> Image.Image:
    """Palette and 1-bit as RGB, RGBA or grey, deep grey as 8-bit: what can be averaged."""
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("L", "RGB") and "transparency" in image.info:
        return image.convert("RGBA")
    return _shallow(image) if image.mode[0] in "IF" else image


def _shallow(image: Image.Image) -> Image.Image:
    """8-bit grey from 16-bit, 32-bit or float grey: values up to 1, 255 or 65535 are taken for the full scale."""
    values = np.array(image, dtype=np.float32)
    np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    np.maximum(values, 0, out=values)
    top = float(values.max(initial=0.0))
    deep = image.mode.startswith("I;16") or top > 255
    values *= 255 / (65535 if deep else 1 if image.mode == "F" and top <= 1 else 255)
    values += 0.5
    return Image.fromarray(np.minimum(values, 255, out=values).astype(np.uint8))


def flat(image: Image.Image) -> Image.Image:
    """RGB in sRGB, transparency laid on white."""
    profile, plain = foreign_profile(image), resampable(image)
    if plain.has_transparency_data:
        layer = plain.convert("RGBA")
        plain = Image.new("RGB", layer.size, "white")
        plain.paste(layer, mask=layer.getchannel("A"))
    return _to_srgb(plain, profile).convert("RGB")


def foreign_profile(image: Image.Image) -> ImageCms.ImageCmsProfile | None:
    """The embedded profile, if it is valid, fits the picture's channels and is not sRGB already."""
    embedded = image.info.get("icc_profile")
    if not isinstance(embedded, bytes) or image.mode not in ("RGB", "RGBA", "CMYK", "P", "PA"):
        return None
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(embedded))
        space = str(profile.profile.xcolor_space).strip()
        name = ImageCms.getProfileDescription(profile)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    fits = space == ("CMYK" if image.mode == "CMYK" else "RGB")
    return profile if fits and "srgb" not in name.lower() else None


def _to_srgb(image: Image.Image, profile: ImageCms.ImageCmsProfile | None) -> Image.Image:
    if profile is None:
        return image
    try:
        turned = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image  # a profile that cannot be used says nothing about the picture
    return turned if turned is not None else image
