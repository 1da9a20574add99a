"""Workload files: the shipped ones add up to their models, and mistakes name file and operator."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from msdsim.errors import InputError, ProblemError
from msdsim.problems import Attention, Gemm, GroupedGemm, Workload, parse_problem
from msdsim.resources import shipped_names

ROOT = Path(__file__).resolve().parents[2]
FILE = "workload file 'mine.toml'"
HEAD = 'description = "d"\nsource = "s"\n'
OP = '[[op]]\nname = "a"\ncount = 1\nproblem = "gemm:m=1,k=2,n=3"\n'


def linear_layers(workload):
    """Entries whose second operand is weights, not a KV cache."""
    return [entry for entry in workload.entries if isinstance(entry.problem, Gemm | GroupedGemm)]


def weights(workload):
    return sum(entry.count * getattr(entry.problem, "groups", 1) * entry.problem.k * entry.problem.n
               for entry in linear_layers(workload))


# Parameters of the model (model card), less those that are no matmul of this step: the embedding and the norms.
@pytest.mark.parametrize(
    ("name", "parameters", "embedding", "norms"),
    [
        ("llama3-8b-decode", 8_030_261_248, 128256 * 4096, 65 * 4096),
        ("qwen3-14b-decode", 14_768_307_200, 151936 * 5120, 81 * 5120 + 40 * 2 * 128),
        # 61 layers have two norms and those of the two latents, and each of 58 routers has 256 balancing biases.
        ("deepseek-v3-decode", 671_026_419_200, 129280 * 7168, 61 * (2 * 7168 + 1536 + 512) + 7168 + 58 * 256),
        ("qwen3-235b-a22b-decode", 235_093_634_560, 151936 * 4096, 94 * (2 * 4096 + 2 * 128) + 4096),
    ],
)
def test_linear_layers_hold_the_parameters_of_the_model(name, parameters, embedding, norms):
    assert weights(parse_problem(name)) == parameters - embedding - norms


def test_deepseek_activates_37_billion_parameters_per_token():
    workload = parse_problem("deepseek-v3-decode")
    routed = [entry for entry in workload.entries if entry.name.startswith("expert_")]
    all_experts = sum(entry.count * entry.problem.groups * entry.problem.k * entry.problem.n for entry in routed)
    active = weights(workload) - all_experts + all_experts * 8 // 256
    embedding = 129280 * 7168
    assert (active + embedding) / 1e9 == pytest.approx(37.6, abs=0.1)
    rows = {entry.count * entry.problem.total_rows for entry in routed}
    assert rows == {58 * workload.batch * 8}


@pytest.mark.parametrize("name", shipped_names("workloads"))
def test_shipped_workloads_are_complete(name):
    workload = parse_problem(name)
    assert isinstance(workload, Workload)
    assert workload.name == name
    assert workload.batch in (16, 64)
    assert "config.json" in workload.source
    assert workload.entries[-1].name == "lm_head"
    for entry in linear_layers(workload):
        # Balanced routing: 64 tokens pass 8 of 256 or 128 experts, or 4 of 128.
        routed = 4 if name == "qwen3-235b-a22b-decode" else 2
        assert entry.problem.m == (routed if entry.name.startswith("expert_") else workload.batch)


@pytest.mark.parametrize(("name", "formats"), [
    ("llama3-8b-decode", set()), ("qwen3-14b-decode", set()), ("openpangu-718b-decode", set()),
    ("deepseek-v3-decode", {"fp8_e4m3", "bf16"}), ("qwen3-235b-a22b-decode", {"fp8_e4m3", "bf16"}),
    ("gpt-oss-120b-decode", {"mxfp4", "bf16"}),
])
def test_shipped_workloads_are_those_of_the_import(name, formats):
    """As benchmarks/workloads.py writes them from the public configs, in the formats in which the models are published."""
    spec = importlib.util.spec_from_file_location("workloads", ROOT / "benchmarks" / "workloads.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "workloads" / f"{name}.toml").read_text(encoding="utf-8") == module.text_of(name)
    assert {entry.weights for entry in parse_problem(name).entries if entry.weights} == formats


def test_decode_reads_the_whole_cache():
    """K and V of 4096 tokens, in elements per layer; MLA's latent of 576 is key and value (512 of it) at once."""
    for name, layers, elements in (("llama3-8b-decode", 32, 2 * 16 * 8 * 4096 * 128), ("qwen3-14b-decode", 40, 2 * 16 * 8 * 4096 * 128)):
        [entry] = [entry for entry in parse_problem(name).entries if isinstance(entry.problem, Attention)]
        shape = entry.problem
        assert entry.count == layers
        assert 2 * shape.batch * shape.kv_heads * shape.kv * shape.head_dim == elements
        assert (shape.q, shape.batch) == (1, 16)
    [latent] = [entry for entry in parse_problem("deepseek-v3-decode").entries if isinstance(entry.problem, Attention)]
    shape = latent.problem
    assert (latent.count, shape.batch, shape.q, shape.kv, shape.kv_heads) == (61, 64, 1, 4096, 1)
    assert (shape.head_dim, shape.value_dim, shape.softmax_dim, shape.shared_kv) == (512 + 64, 512, 128 + 64, True)


def load(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return parse_problem(str(path))


def test_a_file_is_known_by_its_ending_or_by_its_folder(tmp_path, monkeypatch):
    load(tmp_path, HEAD + OP)
    monkeypatch.chdir(tmp_path)
    assert parse_problem("mine.toml").name == parse_problem("./mine.toml").name == "mine"
    with pytest.raises(InputError, match="nowhere/mine"):
        parse_problem("nowhere/mine")


def test_a_small_file(tmp_path):
    workload = load(tmp_path, HEAD + OP)
    assert (workload.name, workload.description, workload.source, workload.batch) == ("mine", "d", "s", None)
    [entry] = workload.entries
    assert (entry.name, entry.count, entry.problem) == ("a", 1, Gemm(m=1, k=2, n=3))


def test_a_problem_as_a_table(tmp_path):
    table = 'problem = {kind = "grouped_gemm", rows = [5, 0, 33], k = 2, n = 3}'
    [entry] = load(tmp_path, HEAD + OP.replace('problem = "gemm:m=1,k=2,n=3"', table)).entries
    assert entry.problem == GroupedGemm(rows=(5, 0, 33), k=2, n=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (OP, f"{FILE}: key 'description' is missing (keys: name, description, source, batch, dataflow, op)"),
        (HEAD, f"{FILE}: key 'op' is missing (keys: name, description, source, batch, dataflow, op)"),
        (HEAD + "op = []", f"{FILE} has no operators; add an [[op]] with name, count and problem"),
        (HEAD + "op = 3", f"{FILE}: key 'op' = 3 must be a list of [[op]] tables"),
        (HEAD + "op = [3]", f"{FILE}, operator 1 must be a table [[op]] with name, count and problem"),
        (HEAD + "batch = 0\n" + OP, f"{FILE}: key 'batch' = 0 must be at least 1"),
        (HEAD + "batch = true\n" + OP, f"{FILE}: key 'batch' = True must be a whole number"),
        (HEAD + "bacth = 3\n" + OP,
         f"{FILE}: unknown key 'bacth'; did you mean 'batch'? (keys: name, description, source, batch, dataflow, op)"),
        (HEAD + OP.replace("count = 1", "count = 0"), f"{FILE}, operator 1 'a': key 'count' = 0 must be at least 1"),
        (HEAD + OP.replace("count = 1", 'count = "x"'),
         f"{FILE}, operator 1 'a': key 'count' = 'x' must be a whole number"),
        (HEAD + OP.replace("count = 1\n", ""),
         f"{FILE}, operator 1 'a': key 'count' is missing (keys: name, count, problem, weights, experts, dataflow)"),
        (HEAD + OP.replace("count", "cuont"),
         f"{FILE}, operator 1 'a': unknown key 'cuont'; did you mean 'count'? (keys: name, count, problem, weights, experts, dataflow)"),
        (HEAD + OP.replace('"gemm:m=1,k=2,n=3"', "3"),
         f"{FILE}, operator 1 'a': key 'problem' = 3 must be an inline form or a table"),
        (HEAD + OP.replace('"gemm:m=1,k=2,n=3"', '{kind = "grouped_gemm", rows = [1, -1], k = 1, n = 1}'),
         f"{FILE}, operator 1 'a': grouped_gemm: rows = [1, -1] has -1 for group 2, which is no whole number from 0 to 2147483647; "
         "give one for each group, such as 5+0+33+16 (keys: groups and m, or rows; k, n; optional: group, offset, trans_b, x, out, layout)"),
        (HEAD + OP.replace('"gemm:m=1,k=2,n=3"', "{m = 3}"),
         f"{FILE}, operator 1 'a': a problem needs a 'kind' (gemm, grouped_gemm, attention, micro)"),
        (HEAD + OP + OP, f"{FILE} has two operators called 'a'; rename one"),
        (HEAD + OP + OP.replace('"a"', '"b"').replace("k=2", "k=0"),
         f"{FILE}, operator 2 'b': gemm: k = 0 is below 1; give a whole number of at least 1 "
         "(keys: m, k, n; optional: group, offset, trans_b, x, out, layout)"),
        (HEAD + OP.replace("gemm:m=1,k=2,n=3", "llama3-8b-decode"),
         f"{FILE}, operator 1 'a': unknown problem kind 'llama3-8b-decode' (kinds: gemm, grouped_gemm, attention, micro)"),
    ],
)
def test_a_mistake_names_file_and_operator(tmp_path, text, message):
    with pytest.raises(ProblemError) as caught:
        load(tmp_path, text)
    assert str(caught.value) == message


def test_invalid_toml_says_where(tmp_path):
    with pytest.raises(ProblemError, match=r"^workload file 'mine.toml' is not valid TOML: .*line 1"):
        load(tmp_path, "[[op]")


def test_missing_file():
    with pytest.raises(InputError, match=r"^workload file 'no/such.toml' does not exist; give a path to a .toml file"):
        parse_problem("no/such.toml")
