"""Kept programs in a folder that machines of several kinds share."""

import jax
import jaxlib
import pytest

from foley_jax.runtime import compile_cache

X86 = "processor : 0\nflags\t\t: fpu sse2 avx2{}\nmodel name : Some CPU\n\nprocessor : 1\n"
ARM = "processor : 0\nFeatures : fp asimd{}\n"


@pytest.fixture(autouse=True)
def own_folder(tmp_path):
    before = jax.config.jax_enable_compilation_cache, jax.config.jax_compilation_cache_dir
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield
    jax.config.update("jax_enable_compilation_cache", before[0])
    jax.config.update("jax_compilation_cache_dir", before[1])


@pytest.mark.parametrize("text", [X86, ARM])
def test_features_tell_cpus_apart(tmp_path, text):
    file = tmp_path / "cpuinfo"
    file.write_text(text.format(""))
    before = compile_cache._cpu(file)
    file.write_text(text.format(" more"))
    assert compile_cache._cpu(file) != before
    file.write_text(text.format("   "))  # spaces are nothing
    assert compile_cache._cpu(file) == before


def test_a_system_without_cpuinfo_has_its_processors_name(tmp_path):
    assert len(compile_cache._cpu(tmp_path / "none")) == 8


def test_another_jaxlib_or_cpu_finds_none_of_these(tmp_path, monkeypatch):
    folders = [compile_cache.turn_on()]
    for module, name, value in (
        (jaxlib, "__version__", "0.0.1"),
        (compile_cache, "_cpu", lambda: "another"),
        (compile_cache.platform, "machine", lambda: "riscv64"),
    ):
        jax.config.update("jax_compilation_cache_dir", str(tmp_path))
        monkeypatch.setattr(module, name, value)
        folders.append(compile_cache.turn_on())
    assert len(set(folders)) == 4 and all(folder.parent == tmp_path for folder in folders)
    assert all((folder / compile_cache.TRACES).is_dir() for folder in folders)  # traces as well
