"""One unit of a table: one arm at one seed, from the raw pairs to the figures of the model that it pretrains.

The model pretrained on raw pairs is the arm without CapFilt, and is what captioner and filter are finetuned from, as
in the paper. Web texts are bootstrapped at a threshold of 0, so that all texts have their scores, and the threshold is
applied when the next model is trained. Knows the order of things; each of them is another room's.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from capfilt.bootstrap import bootstrap
from capfilt.captions import clean
from capfilt.embedded import start
from capfilt.evaluate.captioning import write
from capfilt.evaluate.quality import diversity, quality
from capfilt.evaluate.references import read
from capfilt.evaluate.retrieval import retrieve
from capfilt.flow.config import PlanConfig, RunConfig
from capfilt.inputs import identity as content_of
from capfilt.med.captioner import MEDCaptioner
from capfilt.med.config import Sharing
from capfilt.med.device import device_of, precision_of
from capfilt.med.model import MED
from capfilt.paper.config import Arm, Scale, of_seed
from capfilt.paper.material import HELD_OUT, cut
from capfilt.paper.steps import Step, Steps
from capfilt.recipe import Recipe, to_json
from capfilt.records import Origin
from capfilt.roles import Writing
from capfilt.shards.read import samples, shards_of
from capfilt.sources.base import SourceConfig
from capfilt.train.config import DataConfig, MixConfig, TrainConfig
from capfilt.train.pairs import Pairs
from capfilt.train.run import FREE, train

PART_ROWS = 500
_MODEL = "model"
_TRUTH = {True: "simulated and right", False: "simulated and wrong", None: "clip art"}


@dataclass(frozen=True)
class Texts:
    """What an arm's model is pretrained on: bootstrapped web pairs, or the raw ones, beside the human ones.

    Args:
        data: the bootstrapped pairs; None takes the raw ones.
        captions: synthetic texts a picture, at most.
    """

    data: Step | None = None
    synthetic: bool = False
    captions: int = 1
    threshold: float = 0.0
    web: float = 1.0


class Experiment:
    """All units of one scale on one corpora folder.

    Args:
        scale: how large.
        corpora: what ``capfilt corpora build`` wrote.
        out: where steps go.
        steps: those of ``out``.
    """

    def __init__(self, scale: Scale, corpora: Path, out: Path, steps: Steps) -> None:
        self.scale, self.corpora, self.steps = scale, corpora, steps
        self.material = steps(
            "material",
            {"split": asdict(scale.split), "pictures": scale.measure.pictures, "corpora": _content(corpora)},
            lambda folder: cut(corpora, scale.split, folder, pictures=scale.measure.pictures),
        )
        self.used: dict[str, float] = {}
        """CPU seconds by step, of those that were asked for since it was emptied."""
        self.precisions: set[str] = set()
        """What those of them that train or bootstrap were computed in."""

    def unit(self, arm: Arm, seed: int) -> dict[str, float]:
        """The figures of an arm at a seed, by name; shares in %, CIDEr times 100.

        Raises:
            CapfiltError: a step failed; the next call goes on.
        """
        self.used, self.precisions = {}, set()
        sharing = arm.sharing or self.scale.model.shared
        begin = self._start(seed, sharing)
        if not (arm.captioner or arm.filter):
            model, texts = self._pretrain(seed, begin, Texts(web=arm.web), arm.steps), Texts(web=arm.web)
        else:
            model, texts = self._bootstrapped(arm, seed, begin)
        told = self._told(texts.data, arm) if texts.data else {}
        return {**self._measure(model, seed), **told, **self._pairs(texts)}

    def _bootstrapped(self, arm: Arm, seed: int, begin: Step) -> tuple[Step, Texts]:
        model, texts = self._pretrain(seed, begin, Texts(), 1.0), Texts()
        for _ in range(arm.rounds):
            captioner, judge = self._roles(arm.roles, seed, model)
            threshold = self._threshold(arm) if arm.filter else 0.0
            data = self._data(arm, seed, captioner, judge)
            texts = Texts(
                data=data,
                synthetic=arm.captioner,
                captions=arm.captions if arm.captioner else 1,
                threshold=threshold,
                web=arm.web,
            )
            origin = model if arm.start == "continue" else begin
            model = self._pretrain(seed, origin, texts, arm.steps)
        return model, texts

    def _threshold(self, arm: Arm) -> float:
        return self.scale.capfilt.threshold if arm.threshold is None else arm.threshold

    def _ask(self, kind: str, seed: int, identity: Mapping[str, Any], work: Any) -> Step:
        step = self.steps(f"{kind}-s{seed}", {"on": self.material.name, **identity}, work)
        self.used[step.name] = step.cpu_s
        return step

    def _computed(
        self, kind: str, seed: int, identity: Mapping[str, Any], precision: str, work: Callable[[Path], dict[str, Any]]
    ) -> Step:
        """A step that is computed in what this machine takes ``precision: auto`` for, and writes that down.

        Machines may share a folder, so what was done is told by its own precision and not by that of the machine that
        finds it. Of a step that was stopped and went on it is the last part's. Folders made before it was written down
        say nothing, and count as this machine's.
        """
        step = self._ask(kind, seed, identity, lambda folder: {**work(folder), "precision": precision})
        self.precisions.add(step.figures.get("precision", precision))
        return step

    def _start(self, seed: int, sharing: Sharing) -> Step:
        vocabulary = (self.corpora / "vocab.txt").read_text(encoding="utf-8")
        pieces = len([line for line in vocabulary.split("\n") if line.strip()])
        model = self.scale.model
        model = replace(model, shared=sharing, text=replace(model.text, vocab_size=pieces + 2))

        def work(folder: Path) -> dict[str, Any]:
            architecture = folder / "architecture"
            architecture.mkdir(exist_ok=True)
            model.save(architecture)
            (architecture / "vocab.txt").write_text(vocabulary, encoding="utf-8")
            start(self.corpora, architecture, folder / _MODEL, seed=seed)
            return {"parameters": sum(p.numel() for p in MED.load(folder / _MODEL).parameters())}

        return self._ask("start", seed, {"seed": seed, "model": asdict(model)}, work)

    def _pretrain(self, seed: int, begin: Step, texts: Texts, steps: float) -> Step:
        config = of_seed(self.scale.pretrain, seed)
        config = replace(config, steps=max(1, round((config.steps or 1) * steps)), data=self._mixed(config.data, texts))
        told = {**asdict(replace(texts, data=None)), "data": texts.data and texts.data.name}
        if texts.captions == 1:
            del told["captions"]  # as it was before several were trained on, so that what is done stays done
        return self._train("pretrain", seed, config, begin, {"texts": told})

    def _mixed(self, data: DataConfig, texts: Texts) -> DataConfig:
        human = MixConfig(shards=(self._set("human"),), origins=("human",))
        web = str(texts.data.folder / "data") if texts.data else self._set("web")
        mix = [human]
        if texts.web:
            mix.append(MixConfig(shards=(web,), origins=("web",), min_itm=texts.threshold, weight=texts.web))
        if texts.synthetic:
            mix.append(
                MixConfig(
                    shards=(web,),
                    origins=("synthetic",),
                    min_itm=texts.threshold,
                    captions_per_image=texts.captions,
                )
            )
        return replace(data, mix=tuple(mix))

    def _set(self, name: str) -> str:
        return str(self.material.folder / f"{name}-00000.tar")

    def _roles(self, roles: str, seed: int, model: Step) -> tuple[Step, Step]:
        if roles == "shared":
            both = self._finetune("shared", seed, self.scale.shared, model)
            return both, both
        judge = self.scale.filter
        if roles == "decoupled_as_long":
            judge = replace(judge, steps=self.scale.shared.steps, optim=self.scale.shared.optim)
        return (
            self._finetune("captioner", seed, self.scale.captioner, model),
            self._finetune("filter", seed, judge, model),
        )

    def _finetune(self, kind: str, seed: int, config: TrainConfig, model: Step) -> Step:
        config = of_seed(config, seed)
        config = replace(config, data=replace(config.data, shards=(self._set("human"),), origins=("human",)))
        return self._train(kind, seed, config, model, {})

    def _train(self, kind: str, seed: int, config: TrainConfig, begin: Step, identity: Mapping[str, Any]) -> Step:
        told = {name: value for name, value in to_json(config).items() if name not in FREE}
        # One stream is what there was before there were streams: such steps need not be done again.
        without = ("shards", "mix") if config.data.streams > 1 else ("shards", "mix", "streams")
        told["data"] = {name: value for name, value in told["data"].items() if name not in without}

        def work(folder: Path) -> dict[str, Any]:
            done = train(replace(config, init=str(begin.folder / _MODEL), out=str(folder), track=()))
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            return {"steps": done.steps, "first_loss": done.first_loss, "last_loss": done.last_loss}

        identity = {"train": told, "begin": begin.name, **identity}
        return self._computed(kind, seed, identity, _trained_in(config), work)

    def _data(self, arm: Arm, seed: int, captioner: Step, judge: Step) -> Step:
        capfilt = replace(
            self.scale.capfilt,
            captioner=str(captioner.folder / _MODEL),
            filter=str(judge.folder / _MODEL),
            decoding=arm.decoding,
            captions_per_image=arm.captions,
            threshold=0.0,
            seed=seed,
        )
        told = {name: value for name, value in to_json(capfilt).items() if name not in ("captioner", "filter")}
        recipe = Recipe(
            source=SourceConfig(path=self._set("web")), capfilt=capfilt, plan=PlanConfig(part_rows=PART_ROWS)
        )

        def work(folder: Path) -> dict[str, Any]:
            dest = str(folder / "data")
            done = bootstrap(recipe.source, dest, recipe=recipe, run=RunConfig(runner="local"))
            return {"totals": (done.manifest or {})["totals"]}

        identity = {"capfilt": told, "captioner": captioner.name, "filter": judge.name}
        precision = _name(precision_of(capfilt.dtype, device_of(capfilt.device)))
        return self._computed("data", seed, identity, precision, work)

    def _measure(self, model: Step, seed: int) -> dict[str, float]:
        """Retrieval of the pretrained model, and captions of what a short finetuning makes of it."""
        captioner = self._finetune("next", seed, self.scale.next_captioner, model)
        measure, captions = self.scale.measure, self.scale.capfilt
        writing = Writing(beams=measure.beams, max_length=captions.max_length, min_length=captions.min_length)

        def work(_: Path) -> dict[str, Any]:
            whole = MED.load(model.folder / _MODEL)
            writer = MEDCaptioner.load(captioner.folder / _MODEL, writing)
            told: dict[str, float] = {}
            for name, suffix in HELD_OUT.items():
                items = list(islice(read([self._set(name)]), measure.pictures))
                found = retrieve(whole, items, rerank=measure.rerank, batch_size=measure.batch_size)
                texts = write(writer, items, batch_size=measure.batch_size)
                scores = quality(texts, [item.texts for item in items], java=False).scores
                both = (found.text or found.text_by_itc, found.image or found.image_by_itc)
                recalls = [value for side in both for value in asdict(side).values()]
                own = {
                    "CIDEr": scores["CIDEr"],
                    "recall": sum(recalls) / len(recalls),
                    "TR@1": both[0].at_1,
                    "IR@1": both[1].at_1,
                    "different captions": diversity(texts).unique,
                }
                told |= {f"{figure}{suffix}": 100 * value for figure, value in own.items()}
            return told

        identity = {
            "measure": asdict(measure),
            "writing": asdict(writing),
            "model": model.name,
            "captioner": captioner.name,
        }
        return dict(self._ask("measure", seed, identity, work).figures)

    def _told(self, data: Step, arm: Arm) -> dict[str, float]:
        """Of the bootstrapped texts: how many the filter rejects, whether rightly, and how varied they are."""
        right = {s.key: s.meta.get("right") for s in samples(shards_of(self._set("web")))}
        threshold = self._threshold(arm)
        rejected: dict[str, list[bool]] = {}
        made: list[str] = []
        for sample in samples(shards_of(str(data.folder / "data"))):
            for caption in sample.captions:
                noisy = (caption["itm"] or 0.0) < threshold
                if caption["origin"] == Origin.WEB:
                    truth = _TRUTH[right.get(str(sample.meta.get("source_key")))]
                    for name in ("noise, web", f"noise, {truth}"):
                        rejected.setdefault(name, []).append(noisy)
                else:
                    rejected.setdefault("noise", []).append(noisy)
                    made.append(clean(caption["text"]))
        told = {name: 100 * sum(rows) / len(rows) for name, rows in rejected.items()}
        if made:
            varied = diversity(made)
            told |= {
                "different synthetic": 100 * varied.unique,
                "synthetic words": float(varied.vocabulary),
                "distinct-2": 100 * varied.distinct_2,
            }
        return told

    def _pairs(self, texts: Texts) -> dict[str, float]:
        """Texts that the model was pretrained on, by origin: those that training's own rules leave."""
        pairs = Pairs(self._mixed(self.scale.pretrain.data, texts))
        pairs.count()
        found = dict.fromkeys((origin.value for origin in Origin), 0.0)
        for source, count in zip(pairs.sources, pairs.counts, strict=True):
            (origin,) = source.config.origins
            found[origin] += count
        return {f"{origin} texts": count for origin, count in found.items()}


def _trained_in(config: TrainConfig) -> str:
    """bfloat16 where autocast computes in it, else float32, which weights and their updates are in anyway."""
    found = precision_of(config.precision, device_of(config.device))
    return _name(found if found == torch.bfloat16 else torch.float32)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _content(corpora: Path) -> str:
    """A digest of all that is taken from the corpora: shards, vocabulary, words and backbone."""
    files = sorted(file for kind in ("*.tar", "vocab.txt", "*.safetensors") for file in corpora.glob(kind))
    told = "\n".join(f"{file.name} {content_of(str(file))}" for file in files)
    return hashlib.sha256(told.encode()).hexdigest()
