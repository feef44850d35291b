"""The manifests as kustomize builds them: Kubernetes' schemas for what they hold, our loader for the recipes in them.

Kustomize's own program is used where it is; without it, the few things of it that the overlays need are done here,
and where both are there they must agree.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import jsonpatch
import kubernetes_validate
import pytest
import yaml

from capfilt.recipe import Recipe, load, load_config

KUBERNETES = Path(__file__).resolve().parents[2] / "deploy/kubernetes"
FOLDERS = sorted(str(file.parent.relative_to(KUBERNETES)) for file in KUBERNETES.rglob("kustomization.yaml"))
VERSIONS = ("1.30", "1.37")


def build(folder: Path) -> dict[str, dict]:
    """What `kubectl apply -k` would send, by kind."""
    plan = yaml.safe_load((folder / "kustomization.yaml").read_text())
    found: dict[str, dict] = {}
    for name in plan.pop("resources"):
        at = folder / name
        for kind, thing in (build(at) if at.is_dir() else _read(at)).items():
            assert kind not in found
            found[kind] = thing
    for made in plan.pop("configMapGenerator", []):
        data = {name: (folder / name).read_text() for name in made["files"]}
        assert (made.get("behavior") == "replace") == ("ConfigMap" in found)
        found["ConfigMap"] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": made["name"]}, "data": data}
    for patch in plan.pop("patches", []):
        kind = patch["target"]["kind"]
        found[kind] = jsonpatch.apply_patch(found[kind], yaml.safe_load(patch["patch"]))
    for image in plan.pop("images", []):
        for thing in found.values():
            _tag(thing, image)
    assert plan.pop("generatorOptions", {}) in ({}, {"disableNameSuffixHash": True})
    assert set(plan) == {"apiVersion", "kind"}, "the rest is not done here"
    return found


def _read(file: Path) -> dict[str, dict]:
    return {thing["kind"]: thing for thing in yaml.safe_load_all(file.read_text())}


def _tag(thing, image):
    if isinstance(thing, list):
        for part in thing:
            _tag(part, image)
    elif isinstance(thing, dict):
        for part in thing.get("containers", []) if isinstance(thing.get("containers"), list) else []:
            name, _, _ = part["image"].partition(":")
            if name == image["name"]:
                part["image"] = f"{name}:{image['newTag']}"
        for part in thing.values():
            _tag(part, image)


@pytest.fixture(params=FOLDERS)
def built(request):
    return build(KUBERNETES / request.param)


def cluster_of(built):
    if "RayService" in built:
        return built["RayService"]["spec"]["rayClusterConfig"]
    return built["RayJob"]["spec"]["rayClusterSpec"]


def pods_of(built):
    cluster = cluster_of(built)
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_there_is_a_base_and_a_gpu_overlay_of_each():
    assert set(FOLDERS) >= {
        f"{job}/{way}" for job in ("bootstrap", "pretrain", "service") for way in ("base", "overlays/gpu")
    }


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
@pytest.mark.parametrize("folder", FOLDERS)
def test_kustomize_builds_the_same(folder):
    done = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES / folder)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    theirs = {thing["kind"]: thing for thing in yaml.safe_load_all(done.stdout)}
    assert theirs == build(KUBERNETES / folder)


@pytest.mark.parametrize("version", VERSIONS)
def test_pods_config_maps_and_volumes_are_what_kubernetes_knows(built, version):
    plain = [built[kind] for kind in ("ConfigMap", "PersistentVolumeClaim") if kind in built]
    pods = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, **pod} for pod in pods_of(built)]
    assert len(plain) >= 1
    assert len(pods) >= 2
    for thing in [*plain, *pods]:
        kubernetes_validate.validate(thing, version, strict=True)


def test_an_unknown_field_would_be_seen(built):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, **pods_of(built)[0]}
    pod["spec"]["containers"][0]["imagePullPolicies"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, VERSIONS[-1], strict=True)


def test_what_a_pod_mounts_is_there_and_it_has_no_rights_to_spare(built):
    own = {("configMap", built["ConfigMap"]["metadata"]["name"])}
    if "PersistentVolumeClaim" in built:
        own.add(("claim", built["PersistentVolumeClaim"]["metadata"]["name"]))
    for pod in pods_of(built):
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
        (container,) = pod["spec"]["containers"]
        assert {mount["name"] for mount in container.get("volumeMounts", [])} == set(volumes)
        for volume in volumes.values():
            if "configMap" in volume:
                assert ("configMap", volume["configMap"]["name"]) in own
            if "persistentVolumeClaim" in volume:
                assert ("claim", volume["persistentVolumeClaim"]["claimName"]) in own
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert set(container.get("env", [])) == set()
        assert set(container["resources"]["limits"]) >= {"cpu", "memory"}


def test_the_gpu_overlays_have_a_gpu_and_the_image_for_it():
    for job in ("bootstrap", "pretrain", "service"):
        built = build(KUBERNETES / job / "overlays/gpu")
        images = {pod["spec"]["containers"][0]["image"] for pod in pods_of(built)}
        assert images == {"capfilt:0.1.0-cuda"}
        limits = [pod["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") for pod in pods_of(built)]
        assert limits[:2] == [None, "1"]


def test_ray_is_the_version_of_the_image(built, deploy):
    assert f"ray=={cluster_of(built)['rayVersion']}" in (deploy / "constraints.txt").read_text().splitlines()


def test_recipes_and_entrypoints_are_capfilts(built, understood, tmp_path):
    if "RayService" in built:
        pytest.skip("has settings and no command")
    ((name, text),) = built["ConfigMap"]["data"].items()
    recipe = tmp_path / name
    recipe.write_text(text)
    entrypoint = built["RayJob"]["spec"]["entrypoint"]
    given = understood(entrypoint)
    assert given["recipe"] == f"/etc/capfilt/{name}"
    if " bootstrap " in entrypoint:
        config = load(str(recipe), source=given["source"][0])
        assert isinstance(config, Recipe)
        groups = cluster_of(built)["workerGroupSpecs"]
        gpus = groups[0]["template"]["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu", "0")
        assert config.capfilt.gpus == float(gpus), "the head has none, so the recipe must say it"
    else:
        from capfilt.api.training import configure

        config = configure("pretrain", str(recipe), given["data"], given["out"], [])
        (group,) = cluster_of(built)["workerGroupSpecs"]
        assert given["workers"] == group["replicas"]
        assert config.batch_size % given["workers"] == 0
        mounts = [pod["spec"]["containers"][0]["volumeMounts"] for pod in pods_of(built)]
        assert all(any(given["out"].startswith(mount["mountPath"]) for mount in of) for of in mounts)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own, as it is loaded
def test_the_service_is_what_ray_serve_knows_and_its_settings_are_capfilts(tmp_path):
    from ray.serve.schema import ServeDeploySchema

    from capfilt.service.config import ServiceConfig
    from capfilt.service.deployment import NAME
    from capfilt.service.deployment import built as builder

    for folder in (KUBERNETES / "service/base", KUBERNETES / "service/overlays/gpu"):
        built = build(folder)
        told = ServeDeploySchema.model_validate(yaml.safe_load(built["RayService"]["spec"]["serveConfigV2"]))
        (app,) = told.applications
        assert app.name == NAME
        assert app.import_path == f"{builder.__module__}:{builder.__name__}"
        text = built["ConfigMap"]["data"]["service.yaml"]
        settings = tmp_path / "service.yaml"
        settings.write_text(text)
        config = load_config(ServiceConfig, str(settings))
        assert app.args == {"config": "/etc/capfilt/service.yaml"}
        assert (told.http_options.host, told.http_options.port) == (config.host, config.port)
        ports = {p["name"]: p["containerPort"] for p in pods_of(built)[0]["spec"]["containers"][0]["ports"]}
        assert ports["serve"] == config.port
        assert config.tokens, "beyond one machine it answers only with tokens"
        assert config.replicas == cluster_of(built)["workerGroupSpecs"][0]["replicas"]
