import pytest

from vissl_lite.errors import ConfigError
from vissl_lite.plan.devices import DEVICES, closest, find_device, gib, row_of


def test_memory_can_be_given():
    assert find_device("H100-80GB", memory_gib=40).memory == 40
    assert find_device("h100-80gb").usable == pytest.approx((79.1 - 2) * 2**30)


@pytest.mark.parametrize(("text", "value"), [("80GiB", 80), ("80", 80), ("80GB", 74.5058)])
def test_sizes(text, value):
    assert gib(text) == pytest.approx(value, abs=1e-4)


def test_no_size():
    for text in ("much", "0", "-3", "nan", "inf", ""):
        with pytest.raises(ConfigError, match=f"gpu_memory: '{text}' is no size"):
            gib(text)


def test_unknown_device():
    with pytest.raises(ConfigError, match="did you mean 'h100-80gb'"):
        find_device("h100-80g")


def test_a_file_changes_and_adds_rows(tmp_path):
    file = tmp_path / "mine.yaml"
    numbers = "memory: 24, tflops: 71, bandwidth: 936, link: 32, network: 12, share: 0.4"
    new = f"{{{numbers}, share_from: us}}"
    file.write_text(f"h100-80gb: {{network: 50}}\nrtx3090: {new}\n")
    changed = find_device("h100-80gb", file)
    assert (changed.network, changed.link) == (50, DEVICES["h100-80gb"].link)
    assert find_device("rtx3090", file).tflops == 71


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("h100-80gb: {netwrok: 50}", "unknown key 'netwrok'; did you mean 'network'"),
        ("mine: {memory: 24}", "needs tflops"),
        ("h100-80gb: {network: fast}", "devices.h100-80gb.network: 'fast' is not a number"),
        ("- 1", "is not a mapping"),
        ("h100-80gb: {network: 50", r"devices: \S*mine.yaml cannot be read: while parsing"),
    ],
)
def test_mistakes_in_a_file(tmp_path, text, message):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        find_device("h100-80gb", file)


def test_names_as_cuda_gives_them():
    assert closest("NVIDIA H100 80GB HBM3", 79 * 2**30).tflops == 989
    assert closest("Tesla V100-SXM2-16GB", 16 * 2**30).bf16 is False
    assert closest("NVIDIA A100-SXM4-40GB", 39 * 2**30).memory == 39
    assert closest("a GPU of tomorrow", 99 * 2**30).memory == 99


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-80gb"),
        ("NVIDIA GH200 480GB", "h200"),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA L40S", None),
        ("Tesla T4", None),
    ],
)
def test_what_the_table_knows(name, row):
    assert row_of(name) == row
