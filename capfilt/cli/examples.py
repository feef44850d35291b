"""An example or two of each command, shown at the end of its help. Knows command lines; the tests parse each."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "quickstart": ("capfilt quickstart", "capfilt quickstart out --runner local"),
    "doctor": ("capfilt doctor", "capfilt doctor --full --dest s3://bucket/clean --json"),
    "inspect": ("capfilt inspect laion.parquet", "capfilt inspect pictures -n 20"),
    "preview": ("capfilt preview laion.parquet -n 64", "capfilt preview laion.parquet --out look.html --price 2.5"),
    "bootstrap": (
        "capfilt bootstrap laion.parquet clean --dry-run",
        "capfilt bootstrap laion.parquet clean --set capfilt.threshold=0.6",
        "capfilt bootstrap 's3://bucket/laion/*.parquet' s3://bucket/clean --recipe mine.yaml --workers 8",
        "capfilt bootstrap laion.parquet clean --retry unreachable,timed_out",
    ),
    "verify": ("capfilt verify clean", "capfilt verify clean --repair"),
    "report": ("capfilt report clean", "capfilt report clean --gallery 80 --seed 7"),
    "refilter": (
        "capfilt refilter clean stricter --itm 0.7",
        "capfilt refilter clean web-only --origins web --best 1 --dry-run",
    ),
    "dedup": ("capfilt dedup clean --dry-run", "capfilt dedup clean --near 0"),
    "push": ("capfilt push clean ada/clean", "capfilt push s3://bucket/clean ada/clean --public"),
    "pretrain": (
        "capfilt pretrain clean next-model",
        "capfilt pretrain clean next-model --recipe mine.yaml --workers 4 --set steps=20000",
    ),
    "finetune captioner": ("capfilt finetune captioner coco-shards captioner --set init=next-model/model",),
    "finetune filter": ("capfilt finetune filter coco-shards filter --set init=next-model/model",),
    "evaluate": (
        "capfilt evaluate med-mini/filter clean --measure filtering",
        "capfilt evaluate captioner/model captions_val2014.json --images val2014 --out figures",
    ),
    "paper": ("capfilt paper a --corpora corpora --out tables --seeds 3",),
    "rounds": (
        "capfilt rounds 2 laion.parquet coco-shards rounds --held-out flickr-shards --set start.model=next-model/model",
    ),
    "models": ("capfilt models", "capfilt models show med-mini/captioner"),
    "models show": ("capfilt models show blip/base-224",),
    "models average": ("capfilt models average mean first/model second/model",),
    "models import": ("capfilt models import model_base_caption.pth captioner",),
    "models export": ("capfilt models export captioner/model captioner-hf --layout huggingface",),
    "recipes": ("capfilt recipes", "capfilt recipes show bootstrap > mine.yaml"),
    "recipes show": ("capfilt recipes show bootstrap > mine.yaml",),
    "schema": ("capfilt schema > bootstrap.schema.json", "capfilt schema finetune > finetune.schema.json"),
    "corpora build": ("capfilt corpora build shards",),
    "corpora train": ("capfilt corpora train shards runs models/med-mini",),
    "serve": (
        "capfilt serve --runner local",
        "capfilt serve --tokens capfilt-tokens.yaml --state jobs --host 0.0.0.0",
    ),
    "jobs submit": ("capfilt jobs submit s3://bucket/laion.parquet s3://bucket/clean --server http://gpu-1:8642",),
    "jobs list": ("capfilt jobs list --json",),
    "tokens new": ("capfilt tokens new ada --role jobs --source s3://bucket/ --dest s3://bucket/clean/",),
}
"""By command."""
