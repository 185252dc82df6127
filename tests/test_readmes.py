"""READMEs name what is there: every path, link, module, command and flag in them is followed."""

import ast
import itertools
from pathlib import Path
import re

import pytest
import readme_commands

from foley_jax.interop import registry

ROOT = Path(__file__).parents[1]
FOLDERS = ("configs", "data_prep", "foley_jax", "launch", "tests")
READMES = [ROOT / "README.md", *(p for f in FOLDERS for p in sorted((ROOT / f).rglob("README.md")))]
BESIDE_THE_CODE = (
    *("data_prep", "launch", "tests"),
    *(
        f"foley_jax/{name}"
        for name in ("evaluation", "diff_foley", "mm_diffusion", "mmaudio", "aot", "bench")
    ),
)
CONFIGS = [p for p in sorted((ROOT / "configs").glob("*.py")) if p.stem not in ("base", "__init__")]
FRONT_LINES = 150  # of the top README

# the first part of a path that commands make, or that stands for files of the reader
MADE = {"demo", "out", "runs", "shards", "report"}
READERS = {"VIDEOS", "DATA", "my_videos", "official", "videos", "~", ""}  # "": absolute
SOURCES = (".py", ".sh", ".md", ".cfg", ".toml")
# options of other programs
OTHERS_FLAGS = {"--runner", "--logdir", "--classifier_scale", "--use_fp16"}


def code_and_prose(text):
    """Returns the lines of code blocks, continued ones joined, and the text around the blocks."""
    code, prose, fenced = [], [], False
    for line in text.split("\n"):
        fence = line.lstrip().startswith("```")
        fenced ^= fence
        is_code = fenced or line.startswith("    ")
        prose.append("" if is_code or fence else line)
        code.append(line.strip().removeprefix("$ ") if is_code and not fence else "")
    return "\n".join(code).replace("\\\n", " ").split("\n"), "\n".join(prose)


def spans(prose):
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def slug(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(readme):
    return {slug(title) for title in re.findall(r"^#+ (.+)$", readme.read_text(), re.MULTILINE)}


def wrong_links(readme, prose):
    for link in re.findall(r"\]\(([^)]+)\)", prose):
        path, _, anchor = link.partition("#")
        target = readme.parent / path if path else readme
        if "://" in link:
            continue
        if not target.exists():
            yield f"link to {path}: no such file"
        elif anchor and anchor not in anchors(target):
            yield f"link to {link}: no such heading"


def words(text):
    """Yields the words of a code span or line, values of options by themselves."""
    for word in re.split(r"[\s\"',;()\[\]{}|]+", text):
        if "://" not in word:
            yield word.rpartition("=")[2].partition(":")[0].rstrip(".")


def wrong_paths(readme, texts):
    kinds = registry.kinds()
    for word in itertools.chain.from_iterable(map(words, texts)):
        is_path = word.endswith(SOURCES) or (re.fullmatch(r"[\w.*~/-]+", word) and "/" in word)
        first = word.split("/")[0]
        if not is_path or word in kinds or ("/" in word and first in MADE | READERS):
            continue
        if not any(list(base.glob(word.rstrip("/"))) for base in (ROOT, readme.parent)):
            yield f"{word}: no such file"


def wrong_names(texts):
    """Modules, imports and config fields."""
    configs = [readme_commands.config(f"configs/{p.name}") for p in CONFIGS]
    for text in texts:
        for module, name in re.findall(r"from ([\w.]+) import (\w+)", text):
            if not readme_commands.exists(f"{module}.{name}"):
                yield f"{text}: no module {module}.{name}"
        for name in re.findall(r"(?<![\w./])(?:foley_jax|data_prep)(?:\.\w+)+", text):
            if not readme_commands.exists(name):
                yield f"{name}: no such module"
        for field in re.findall(r"(?<![\w./])config\.([\w.]*\w)", text):
            if not any(readme_commands.has_field(config, field) for config in configs):
                yield f"config.{field}: no config has it"


def known_flags():
    """Every option of a command or script of ours, whichever it is."""
    sources = [p for f in ("foley_jax", "data_prep") for p in (ROOT / f).rglob("*.py")]
    text = "\n".join(p.read_text() for p in sources)
    known = {f"--{name}" for name in re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", text)}
    known |= set(re.findall(r"\"(--\w+)\"", text))
    for script in (ROOT / "launch").glob("*.sh"):
        known |= set(re.findall(r"--[a-z][a-z_-]*", script.read_text()))
    return known | OTHERS_FLAGS | {"--help"}


def wrong_flags(prose_spans, known):
    """Flags that stand alone in the text, without their command."""
    for span in prose_spans:
        for flag in re.findall(r"(?<!\S)--[a-z]\w*(?![\w.-])", span):
            if flag not in known:
                yield f"{flag}: no command has it"


def folder_warnings(readme, text):
    """Returns what a README's text names that is not there."""
    code, prose = code_and_prose(text)
    named = spans(prose)
    found = [*wrong_links(readme, prose), *wrong_paths(readme, [*code, *named])]
    found += [*wrong_names([*code, *named]), *wrong_flags(named, known_flags())]
    return found + [c for line in [*code, *named] for c in readme_commands.wrong(line)]


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_readme_names_is_there(readme, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert not folder_warnings(readme, readme.read_text())


@pytest.mark.parametrize("folder", BESIDE_THE_CODE)
def test_what_the_front_page_leaves_out_stands_beside_the_code(folder):
    assert (ROOT / folder / "README.md") in READMES


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= FRONT_LINES


def test_the_map_shows_the_floors_that_imports_keep():
    tree = ast.parse((ROOT / "tests" / "test_imports.py").read_text())
    values = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}
    floors = reversed(ast.literal_eval(values["FLOORS"]))
    code, _ = code_and_prose((ROOT / "README.md").read_text().partition("\n## Map\n")[2])
    lines = [line for line in code if line][1:]  # below the front doors
    for floor, line in zip(floors, lines, strict=True):
        for room in floor:
            assert re.search(rf"\b{room.rpartition('.')[2]}\b", line), (room, line)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("see `foley_jax/nowhere.py`", "foley_jax/nowhere.py: no such file"),
        ("see `tests/nowhere/`", "tests/nowhere/: no such file"),
        ("    cat launch/nowhere.sh", "launch/nowhere.sh: no such file"),
        ("[more](foley_jax/nowhere/README.md)", "no such file"),
        ("[more](README.md#nowhere)", "no such heading"),
        ("    from foley_jax import samples", "no module foley_jax.samples"),
        ("`foley_jax.nowhere`", "no such module"),
        ("`config.data.max_damages`", "no config has it"),
        ("`--stepz`", "no command has it"),
        ("    python -m foley_jax.sampel x.mp4", "no such module"),
        ("    python -m foley_jax.media.audio x.wav", "the module is no command"),
        ("    python -m foley_jax.sample x.mp4 --model=m --stepz=5", "unrecognized arguments"),
        ("    python -m foley_jax.sample x.mp4 --preset=offical --model=m", "invalid choice"),
        (
            "    python -m foley_jax.evaluation ... \\\n        --protocl=onsets",
            "no option --protocl",
        ),
        ("    python -m foley_jax.main --config=configs/cap.py", "no config configs/cap.py"),
        ("    python -m foley_jax.main --config=configs/cavp.py:demi", "no variant 'demi'"),
        (
            "    python -m foley_jax.main --config=configs/cavp.py --config.batchsize=3",
            "no field batchsize",
        ),
        ("    python -m foley_jax.main --config=configs/cavp.py --wrkdir=r", "no option --wrkdir"),
        ("    bash launch/demos.sh", "no such script"),
        ("    bash launch/gke.sh NAME --clustr=C -- ...", "no option --clustr"),
        ("    pip install 'foley_jax[everything]'", "no extra everything"),
        ("`runs/ldm`, `official/`, `demo/out/*.mp4` and `~/.cache/x`", None),
        ("`stable_diffusion/v1`, `hub:OWNER/NAME`, `gs://B/x`, `configs/*.py`", None),
        ("    python -m foley_jax.sample x.mp4 --model=runs/ldm  # a comment", None),
        ("    bash launch/slurm.sh NAME --nodes=2 -- ...", None),
    ],
)
def test_what_is_not_there_is_found(text, complaint, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = folder_warnings(ROOT / "README.md", text)
    assert bool(found) == (complaint is not None), found
    assert complaint is None or any(complaint in line for line in found), found
