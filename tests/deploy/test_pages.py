"""The pages of deploy/: what they name is there, and their capfilt commands are commands."""

import re

import pytest


def commands(text):
    """Those that begin a line of a shell block, with what is continued on the next."""
    blocks = re.findall(r"^```text\n(.*?)^```", text, re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ capfilt ")]


def test_the_index_names_every_page_and_every_page_is_there(deploy):
    index = (deploy / "README.md").read_text()
    named = set(re.findall(r"\]\((\w+\.md)\)", index))
    assert named == {page.name for page in deploy.glob("*.md")} - {"README.md"}
    for name in re.findall(r"`([\w./-]+)`", index.split("Everywhere")[0]):
        assert (deploy / name).exists(), name


@pytest.mark.parametrize("page", ["README", "image", "compose", "kubernetes", "ray", "slurm"])
def test_links_lead_somewhere_and_commands_are_understood(deploy, understood, page):
    text = (deploy / f"{page}.md").read_text()
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (deploy / link).exists(), link
    for command in commands(text):
        understood(command)
    for command in re.findall(r"'(capfilt [^']+)'", text) + re.findall(r"value: (capfilt .+)", text):
        understood(command)


def test_commands_given_to_the_slurm_script_are_understood(deploy, understood):
    text = (deploy / "slurm.md").read_text() + (deploy / "slurm/capfilt.sbatch").read_text()
    found = re.findall(r"sbatch .*?capfilt\.sbatch ((?:bootstrap|pretrain) .+)", text)
    assert len(found) == 5
    for command in found:
        understood(f"capfilt {command}")
