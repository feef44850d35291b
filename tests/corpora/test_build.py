"""The whole build on tiny packages of the real formats."""

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from safetensors.numpy import load_file

from capfilt.corpora import emoji
from capfilt.corpora import icons as icons_of
from capfilt.corpora.backbone import BACKBONE
from capfilt.corpora.build import EXTRAS, HELD_OUT, ICONS, SETS, TRAINED, build, read_splits
from capfilt.corpora.packages import Package
from capfilt.corpora.vocabulary import ENCODER, SPECIAL
from capfilt.errors import SourceError

pytest.importorskip("resvg_py")
pytestmark = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")

LABELS = ("rat", "ox", "tiger", "rabbit", "dragon", "snake", "horse", "goat", "monkey", "dog", "pig")
CODES = [f"{0x1F400 + i:x}" for i in range(32)]


def locked_package(path, name):
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    told = {"registry": "npm", "version": "1", "licence": "MIT", "what": name}
    return Package(name=name, file=path.name, sha256=sha, **told)


def debian(tmp_path, name, files):
    root = tmp_path / name
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: {name}\n"
    )
    for file, data in files.items():
        target = root / "usr/share/openclipart" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    deb = tmp_path / f"{name}.deb"
    subprocess.run(["dpkg-deb", "-Znone", "--build", "--root-owner-group", root, deb], check=True, capture_output=True)
    return deb


def drawing(title):
    return f"""<svg><cc:Work><dc:title>{title}</dc:title>
      <cc:license rdf:resource="http://web.resource.org/cc/PublicDomain"/></cc:Work></svg>""".encode()


def png(i):
    picture = Image.new("RGB", (40, 30), "white")
    ImageDraw.Draw(picture).rectangle((i % 20, i // 20, 20 + i % 20, 20), fill=(i, 0, 255 - i))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


EXTRA = {"narwhal": "red", "github": "green"}


@pytest.fixture(scope="module")
def packages(tmp_path_factory, encoder_wheel, backbone_wheel):
    tmp = tmp_path_factory.mktemp("packages")

    def npm(name, files):
        path = tmp / f"{name.replace('/', '-').strip('@')}.tgz"
        with tarfile.open(path, "w:gz") as tar:
            for file, content in files.items():
                data = json.dumps(content).encode()
                info = tarfile.TarInfo(f"package/{file}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return path

    entries = [
        {"hexcode": code.upper(), "label": f"{LABELS[i % 11]} {i}", "group": 3, "tags": ["animal", "furry"]}
        for i, code in enumerate(CODES)
    ]
    paths = {emoji.NAMES: npm("names", {"en/data.json": entries})}
    for n, style in enumerate(emoji.STYLES):
        icons = {
            code: {"body": f"<circle r='{9 + n}' cx='{i}' fill='#{i:02x}{n}0ff'/>"} for i, code in enumerate(CODES)
        }
        files = {"icons.json": {"icons": icons, "width": 99, "height": 30}, "chars.json": {c: c for c in CODES}}
        if style.name == "openmoji":
            extras = {key: {"body": f"<circle r='3' fill='{fill}'/>"} for key, fill in EXTRA.items()}
            files["icons.json"]["icons"] |= extras
            files["metadata.json"] = {"categories": {"Extras Openmoji": list(extras), "Extras Unicode": []}}
        paths[style.package] = npm(style.package, files)
    for one in (*icons_of.SETS, *(each for each in icons_of.EXTRAS if not each.categories)):
        drawn = {"anvil": "black", "goat-8": "red", "currency-fill": "currentColor"}
        icons = {
            key: {"body": f"<rect x='{len(one.name)}' width='9' height='9' fill='{fill}'/>"}
            for key, fill in drawn.items()
        }
        paths[one.package] = npm(one.package, {"icons.json": {"icons": icons, "width": 60, "height": 30}})
    names = [f"{'animals' if i % 2 else 'food'}/{chr(97 + i % 26)}{chr(97 + i // 26)}_x" for i in range(120)]
    titles = {f"svg/{name}.svg": drawing("gramastar" if i < 60 else f"Title {name}") for i, name in enumerate(names)}
    # The second half is drawn like the first, under other names and with other bytes.
    pictures = {f"png/{name}.png": png(i % 60) + b"\0" * (i // 60) for i, name in enumerate(names)}
    paths["openclipart-svg"] = debian(tmp, "openclipart-svg", titles)
    paths["openclipart-png"] = debian(tmp, "openclipart-png", pictures)
    wheel = encoder_wheel([*SPECIAL, *"abcdefghijklmnopqrstuvwxyz0123456789", "animal", "furry", "tiger", "horses"], 8)
    paths[ENCODER] = Path(shutil.copy(wheel, tmp))
    paths[BACKBONE] = Path(shutil.copy(backbone_wheel, tmp))
    return tmp, {name: locked_package(path, name) for name, path in paths.items()}


@pytest.fixture(scope="module")
def built(packages, tmp_path_factory):
    cache, locked = packages
    dest = tmp_path_factory.mktemp("built")
    return dest, build(str(dest), cache=str(cache), processes=1, packages=locked)


def samples(dest, name):
    found = []
    for path in sorted(dest.glob(f"{name}-0*.tar")):
        with tarfile.open(path) as tar:
            found += [json.load(tar.extractfile(member)) for member in tar if member.name.endswith(".json")]
    return found


def test_what_is_measured_on_is_never_trained_on(built):
    dest, told = built
    trained = [one for name in TRAINED for one in samples(dest, name)]
    splits = read_splits(str(dest))
    assert {one["style"] for one in trained} <= {*splits["styles"]["train"], "clipart"}
    for name in ("heldout-seen-style", "heldout-unseen-style", "heldout-clipart"):
        measured = samples(dest, name)
        assert measured
        assert not {one["concept"] for one in measured} & {one["concept"] for one in trained}
    pictures = {one["sha256"] for name in HELD_OUT for one in samples(dest, name)}
    assert not pictures & {one["sha256"] for one in trained}
    drawings = samples(dest, "heldout-picture")
    assert {f"{one['style']}/{one['concept']}" for one in drawings} <= set(splits["drawings_held_out"])
    seen = {(one["style"], one["concept"]) for one in trained}
    assert drawings
    assert not {(one["style"], one["concept"]) for one in drawings} & seen
    assert {one["concept"] for one in drawings} <= {concept for _, concept in seen}
    assert told["left_out"]["same_as_held_out"] > 0


def test_concepts_fall_as_the_written_split_says(built):
    dest, _ = built
    splits = read_splits(str(dest))
    assert {one["concept"] for one in samples(dest, "human-train")} <= set(splits["concepts"]["train"])
    assert {one["concept"] for one in samples(dest, "heldout-seen-style")} == set(splits["concepts"]["held_out"])
    assert {one["style"] for one in samples(dest, "unseen-style")} == set(splits["styles"]["held_out"])


def test_captions_come_with_their_origin_and_best_first(built):
    dest, _ = built
    human, web = samples(dest, "human-train")[0], samples(dest, "web-train")[0]
    assert len(human["captions"]) == 2
    assert {caption["origin"] for caption in human["captions"]} == {"human"}
    assert [caption["origin"] for caption in web["captions"]] == ["web"]
    assert all(c["kept"] and c["itm"] is None for c in human["captions"] + web["captions"])
    with tarfile.open(dest / "human-train-00000.tar") as tar:
        files = [member.name for member in tar][:3]
        assert tar.extractfile(files[1]).read().decode() == human["captions"][0]["text"]
    assert [file.partition(".")[2] for file in files] == ["webp", "txt", "json"]


def test_repeated_titles_are_capped_in_training_and_counted(built):
    dest, told = built
    stars = [one for one in samples(dest, "web-train") if one["captions"][0]["text"] == "gramastar"]
    before = json.loads((dest / "titles.json").read_text())["gramastar"]
    assert len(stars) <= 3 < before
    assert told["left_out"]["clipart_repeats_capped"] == before - 3


def test_icons_show_no_held_out_concept_and_lend_no_word(built):
    dest, _ = built
    icons = samples(dest, ICONS)
    # "goat" is a word of trained and of held-out names here, and no name by itself.
    assert {one["concept"] for one in icons} >= {"anvil", "currency"}
    assert {one["captions"][0]["text"] for one in icons} >= {"an anvil", "a currency"}
    assert {caption["origin"] for one in icons for caption in one["captions"]} == {"human"}
    assert not {"anvil", "currency"} & set((dest / "vocab.txt").read_text().splitlines())
    assert not {one["sha256"] for name in HELD_OUT for one in samples(dest, name)} & {one["sha256"] for one in icons}


def test_extras_are_drawings_of_the_emoji_sets_and_others_that_are_no_emoji(built):
    dest, told = built
    extras = samples(dest, EXTRAS)
    drawn = {(one["style"], one["concept"]) for one in extras}
    assert drawn >= {("openmoji", "narwhal"), ("flat-ui", "anvil")}
    assert "github" not in {concept for _, concept in drawn}
    assert told["sets"][EXTRAS]["pictures"] == len(extras)
    assert not {"narwhal"} & set((dest / "vocab.txt").read_text().splitlines())


def test_titles_below_many_pictures_are_boilerplate(built):
    dest, _ = built
    assert json.loads((dest / "titles.json").read_text())["gramastar"] >= 10
    assert (dest / "boilerplate.txt").read_text() == "gramastar\n"


def test_the_books_are_told_and_the_vocabulary_written(built):
    dest, told = built
    assert json.loads((dest / "corpora.json").read_text()) == told
    for name in SETS:
        assert told["sets"][name]["pictures"] == len(samples(dest, name))
    assert (dest / "vocab.txt").read_text().splitlines()[:3] == ["[PAD]", "[UNK]", "[CLS]"]
    assert {package["name"] for package in told["packages"]} >= {"openclipart-png", emoji.NAMES}


def test_built_again_it_is_the_same_bytes(built, packages, tmp_path):
    dest, _ = built
    cache, locked = packages
    build(str(tmp_path), cache=str(cache), processes=2, packages=locked)
    files = sorted(path.name for path in dest.iterdir())
    assert files == sorted(path.name for path in tmp_path.iterdir())
    assert all((dest / file).read_bytes() == (tmp_path / file).read_bytes() for file in files)


def test_another_archive_builds_nothing(packages, tmp_path):
    cache, locked = packages
    shutil.copytree(cache, tmp_path / "cache")
    (tmp_path / "cache" / locked[emoji.NAMES].file).write_bytes(b"other")
    with pytest.raises(SourceError, match="as locked"):
        build(str(tmp_path / "dest"), cache=str(tmp_path / "cache"), packages=locked)
    assert not list((tmp_path / "dest").glob("*"))


def test_the_vocabulary_holds_the_words_and_their_vectors(built):
    dest, told = built
    pieces = (dest / "vocab.txt").read_text().splitlines()
    assert told["vocabulary"] == len(pieces)
    assert {"animal", "furry", "tiger"} <= set(pieces)
    assert "horses" not in pieces
    assert load_file(dest / "words.safetensors")["words"].shape == (len(pieces), 8)
    assert load_file(dest / "backbone.safetensors")["conv_stem.weight"].shape == (2, 3, 3, 3)


def test_held_out_drawings_are_of_many_styles(built):
    splits = read_splits(str(built[0]))
    assert len({drawing.split("/")[0] for drawing in splits["drawings_held_out"]}) >= 3
