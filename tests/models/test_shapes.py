"""Where tensors are at hand, their shapes decide: every matrix is counted or named as not simulated."""

from __future__ import annotations

import json

import pytest

from msdsim.cli.program import run_program
from msdsim.errors import InputError
from msdsim.explore.import_model import read_model
from msdsim.models.reading import read_decoder
from msdsim.models.shapes import decoder_from_shapes
from msdsim.models.stored import Matrix, matrices

LLAMA = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4, "num_key_value_heads": 2,
         "num_hidden_layers": 2, "vocab_size": 1000}


def llama(layers=2, wide=160, prefix="model."):
    found = {f"{prefix}embed_tokens.weight": ("BF16", (1000, 64)), "lm_head.weight": ("BF16", (1000, 64))}
    for layer in range(layers):
        at = f"{prefix}layers.{layer}."
        for name, shape in (("self_attn.q_proj", (64, 64)), ("self_attn.k_proj", (32, 64)), ("self_attn.v_proj", (32, 64)),
                            ("self_attn.o_proj", (64, 64)), ("mlp.gate_proj", (wide, 64)), ("mlp.up_proj", (wide, 64)),
                            ("mlp.down_proj", (64, wide))):
            found[f"{at}{name}.weight"] = ("BF16", shape)
        found[f"{at}input_layernorm.weight"] = ("BF16", (64,))
    return found


def test_shapes_that_agree_with_the_config():
    known = read_decoder(LLAMA, "config.json").decoder
    found = decoder_from_shapes(llama(), "m", LLAMA, known).decoder
    assert (found.total, found.family) == (known.total, "llama")
    assert found.notes == ("the shapes of 16 tensors agree with the config",)


def test_shapes_that_do_not():
    known = read_decoder(LLAMA, "config.json").decoder
    found = decoder_from_shapes(llama(wide=192), "m", LLAMA, known).decoder
    assert found.total - known.total == 2 * 3 * 32 * 64
    assert "the tensors decide" in found.notes[-1]


def test_a_family_that_nobody_knows():
    config = {"model_type": "mystery", "num_attention_heads": 4, "num_key_value_heads": 2}
    found = decoder_from_shapes(llama(), "m", config, None).decoder
    assert found.total == read_decoder(LLAMA, "config.json").decoder.total
    attention = found.layers[0].mixers[0].attention
    assert (attention.heads, attention.kv_heads, attention.head_dim) == (4, 2, 16)
    # Without a config nothing tells the heads.
    assert decoder_from_shapes(llama(), "m", None, None).decoder.layers[0].mixers[0].attention is None
    assert decoder_from_shapes(llama(), "m", {"num_attention_heads": 5}, None).decoder.layers[0].mixers[0].attention is None


def test_other_parts_are_named():
    more = {"vision_tower.layers.0.fc.weight": ("BF16", (9, 9)), "model.layers.0.conv1d.weight": ("BF16", (64, 1, 4)),
            "model.layers.2.eh_proj.weight": ("BF16", (64, 128)), "model.layers.2.mlp.up_proj.weight": ("BF16", (160, 64))}
    found = decoder_from_shapes(llama() | more, "m", None, None).decoder
    assert len(found.layers) == 2
    assert found.notes[0].startswith("4 tensors are no matmul of a decoder's step and not simulated: ")
    for name in ("vision_tower.layers.N.fc (1)", "model.layers.N.convNd (1)", "model.layers.N.eh_proj (1)"):
        assert name in found.notes[0]


def experts(fused):
    found = {name: tensor for name, tensor in llama().items() if ".mlp." not in name}
    for layer in range(2):
        at = f"model.layers.{layer}.mlp."
        found[f"{at}gate.weight"] = ("BF16", (8, 64))
        if fused == "rows":
            found |= {f"{at}experts.gate_up_proj": ("BF16", (8, 96, 64)), f"{at}experts.down_proj": ("BF16", (8, 64, 48))}
        elif fused == "columns":
            found |= {f"{at}experts.gate_up_proj": ("BF16", (8, 64, 96)), f"{at}experts.down_proj": ("BF16", (8, 48, 64))}
        else:
            for expert in range(8):
                found |= {f"{at}experts.{expert}.w1.weight": ("BF16", (48, 64)), f"{at}experts.{expert}.w3.weight": ("BF16", (48, 64)),
                          f"{at}experts.{expert}.w2.weight": ("BF16", (64, 48))}
    return found


@pytest.mark.parametrize("fused", ["rows", "columns", "apart"])
def test_experts(fused):
    found = decoder_from_shapes(experts(fused), "m", {"num_experts_per_tok": 2}, None).decoder
    [mlp] = found.layers[0].mlps
    assert (mlp.experts.count, mlp.experts.chosen, [(x.name, x.k, x.n) for x in mlp.experts.linears]) == (
        8, 2, [("expert_gate_up_proj", 64, 96), ("expert_down_proj", 48, 64)])
    with pytest.raises(InputError, match="nothing says how many a token passes"):
        decoder_from_shapes(experts(fused), "m", None, None)
    with pytest.raises(InputError, match="no token reaches an expert"):
        decoder_from_shapes(experts(fused), "m", {"num_experts_per_tok": 0}, None)


@pytest.mark.parametrize(("tensors", "shape", "fmt"), [
    ({"w.qweight": ("I32", (32, 192)), "w.qzeros": ("I32", (2, 24)), "w.scales": ("F16", (2, 192)), "w.g_idx": ("I32", (256,))},
     (192, 256), "int4, groups of 128, offsets"),
    ({"w.qweight": ("I32", (256, 24)), "w.qzeros": ("I32", (2, 24)), "w.scales": ("F16", (2, 192))},
     (192, 256), "int4, groups of 128, offsets"),
    ({"w.qweight": ("I32", (64, 192)), "w.qzeros": ("I32", (2, 48)), "w.scales": ("F16", (2, 192))},
     (192, 256), "int8, groups of 128, offsets"),
    ({"w.weight_packed": ("I32", (192, 32)), "w.weight_scale": ("BF16", (192, 8)), "w.weight_shape": ("I64", (2,))},
     (192, 256), "int4, groups of 32"),
    ({"w.weight": ("I8", (192, 256)), "w.weight_scale": ("BF16", (192, 1))}, (192, 256), "int8"),
    ({"w.weight": ("I8", (96, 256)), "w.weight_scale": ("F32", (192, 1)), "w.weight_offset": ("F32", (192, 1))}, (192, 256), "int4"),
    ({"w.weight": ("I8", (192, 128)), "w.scale": ("F8_E8M0", (192, 8))}, (192, 256), "mxfp4"),
    ({"w.weight": ("U8", (192, 128)), "w.weight_scale": ("F8_E4M3", (192, 16)), "w.weight_scale_2": ("F32", ())}, (192, 256), "nvfp4"),
    ({"w.weight_packed": ("U8", (192, 128)), "w.weight_scale": ("U8", (192, 8))}, (192, 256), "mxfp4"),
    ({"w_blocks": ("U8", (4, 192, 8, 16)), "w_scales": ("U8", (4, 192, 8))}, (4, 192, 256), "mxfp4"),
    ({"w.weight": ("F8_E4M3", (192, 256)), "w.weight_scale_inv": ("F32", (2, 2))}, (192, 256), "fp8_e4m3"),
    ({"w.weight": ("U32", (192, 32)), "w.scales": ("BF16", (192, 4)), "w.biases": ("BF16", (192, 4))}, (192, 256),
     "int4, groups of 64, offsets"),
])
def test_packed_weights(tensors, shape, fmt):
    found, unknown = matrices(tensors, 4)
    assert (found[0].module, found[0].shape, str(found[0].fmt)) == ("w", shape, fmt)
    assert (len(found), unknown) == (1, [])


def test_what_cannot_be_told_is_named():
    found, unknown = matrices({"w.weight": ("U8", (24576, 1)), "w.weight.quant_state.bitsandbytes__nf4": ("U8", (100,)),
                               "v.weight": ("BF16", (3, 4))})
    assert (found, unknown) == ([Matrix("v", (3, 4))], ["w.weight"])


def write(path, tensors):
    bits = {"BF16": 16, "F8_E4M3": 8, "F32": 32}
    header, at = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = bits[dtype] // 8
        for axis in shape:
            size *= axis
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)


def test_folders_files_and_indices(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mine"
    folder.mkdir()
    names = list(llama())
    for number, part in enumerate((names[:7], names[7:])):
        write(folder / f"m-{number}.safetensors", {name: llama()[name] for name in part})
    weight_map = {name: f"m-{int(names.index(name) >= 7)}.safetensors" for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert read_model(folder).decoder.family == "by shapes"
    (folder / "config.json").write_text(json.dumps(LLAMA))
    for place in (folder, folder / "model.safetensors.index.json"):
        assert "the shapes of 16 tensors agree with the config" in read_model(place).decoder.notes
    assert run_program(["import", "mine", "--kv", "64"]) == 0
    assert "family: llama" in capsys.readouterr().out
    assert run_program(["import", "mine/m-0.safetensors"]) == 2
    assert "m-0.safetensors' has no tensors of layer 1, but of 1 others up to layer 0 of 2" in capsys.readouterr().err
    (folder / "config.json").unlink()
    write(folder / "m-00001-of-00002.safetensors", llama())
    assert run_program(["import", "mine/m-00001-of-00002.safetensors"]) == 2
    assert "is one of 2 files of a model" in capsys.readouterr().err
    (folder / "m-00001-of-00002.safetensors").unlink()
    write(tmp_path / "cut.safetensors", {name: tensor for name, tensor in llama().items() if "1.mlp.down" not in name})
    assert run_program(["import", "cut.safetensors"]) == 2
    assert "has no 'mlp.down_proj' in its last layer, 1" in capsys.readouterr().err
    (folder / "config.json").write_text(json.dumps(LLAMA | {"model_type": "mystery"}))
    assert run_program(["import", "mine", "--kv", "64", "--name", "other"]) == 0
    text = capsys.readouterr().out
    assert "family: by shapes" in text
    assert "the tensors decide, since the config is not understood" in text
    (folder / "m-1.safetensors").unlink()
    assert run_program(["import", "mine"]) == 2
    assert "1 of them are not in its folder" in capsys.readouterr().err


def test_formats_are_those_of_the_tensors(tmp_path):
    tensors = {name: ("F8_E4M3" if ".mlp." in name else dtype, shape) for name, (dtype, shape) in llama().items()}
    write(tmp_path / "model.safetensors", tensors)
    model = read_model(tmp_path / "model.safetensors")
    assert str(model.quantization.of("0.model.layers.0.mlp.up_proj")) == "fp8_e4m3"
    assert str(model.quantization.of("0.model.layers.0.self_attn.q_proj")) == "bf16"
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    model = read_model(tmp_path)
    assert [str(model.quantization.of(f"model.layers.1.{name}")) for name in ("mlp.up_proj", "self_attn.q_proj")] == ["fp8_e4m3", "bf16"]


PANGU = {"model_type": "openpangu_v2", "hidden_size": 128, "num_hidden_layers": 5, "num_attention_heads": 4, "q_lora_rank": 96,
         "kv_lora_rank": 64, "qk_nope_head_dim": 64, "qk_rope_head_dim": 16, "v_head_dim": 32, "intermediate_size": 256,
         "moe_intermediate_size": 48, "n_routed_experts": 8, "n_shared_experts": 2, "num_experts_per_tok": 3,
         "first_k_dense_replace": 2, "use_mhc": True, "mhc_num_stream": 4, "mhc_recur_norm": 20, "use_mome": True,
         "router_sliding_window": 3, "param_sink_number": 4, "dsa_layers": [0, 3], "swa_layers": [1, 2, 5],
         "sliding_window_list": [4, 8, 16], "block_post_layernorm_idx": [0, 2], "index_topk": 64, "index_n_heads": 2,
         "index_head_dim": 24, "vocab_size": 512}


def pangu():
    """Every matrix of the small model, as its checkpoint names them."""
    wide = {"q_a_proj": (96, 128), "q_b_proj": (4 * 80, 96), "kv_a_proj_with_mqa": (80, 128), "kv_b_proj": (4 * 96, 64),
            "o_proj": (128, 4 * 32)}
    found = {"model.embed_tokens.weight": (512, 128), "lm_head.weight": (512, 128), "model.merge_mhc_module.phi.weight": (4, 512)}
    for layer in range(5):
        at = f"model.layers.{layer}."
        found |= {f"{at}self_attn.{name}.weight": shape for name, shape in wide.items()}
        found |= {f"{at}{name}.phi.weight": (24, 512) for name in ("attn_mhc_module", "mlp_mhc_module")}
        found |= {f"{at}self_attn.{name}.weight": (n, 1, 3) for name, n in (("qa_conv", 96), ("compresskv_conv", 64), ("o_conv", 128))}
        found |= {f"{at}self_attn.param_sink_compressed_kv": (4, 64), f"{at}self_attn.param_sink_k_pe": (4, 16)}
        if layer in (0, 3):
            found |= {f"{at}self_attn.indexer.{name}.weight": shape for name, shape in
                      (("wq_b", (48, 96)), ("wk", (24, 128)), ("weights_proj", (2, 128)))}
        blocks = [("mlp.", 256)] if layer < 2 else [("mlp.shared_experts.", 96), *((f"mlp.experts.{e}.", 48) for e in range(8))]
        for block, inner in blocks:
            found |= {f"{at}{block}{name}.weight": (128, inner) if name == "down_proj" else (inner, 128)
                      for name in ("gate_proj", "up_proj", "down_proj")}
        if layer >= 2:
            found[f"{at}mlp.gate.weight"] = (8, 128)
    return {name: ("BF16", shape) for name, shape in found.items()}


def test_parallel_streams_windows_and_an_index():
    known = read_decoder(PANGU, "config.json").decoder
    found = decoder_from_shapes(pangu(), "m", PANGU, known).decoder
    assert found.total == known.total == sum(
        shape[0] * shape[1] for name, (_, shape) in pangu().items() if len(shape) == 2 and not any(
            part in name for part in ("embed", "mhc", "sink")))
    assert "agree with the config" in found.notes[-1]
    assert [mixer.attention.window for layer in known.layers for mixer in layer.mixers] == [None, 4, 8, None, None]
    assert [mixer.attention.reads for layer in known.layers for mixer in layer.mixers] == [64, None, None, 64, None]
    assert known.layers[0].mixers[0].state_values == 2 * (96 + 64 + 128)
    for change, said in (({"dsa_layers": [1]}, "layer 1 is in dsa_layers and swa_layers"),
                         ({"sliding_window_list": [4]}, "1 windows for 3 swa_layers"),
                         ({"swa_layers": ["a", 1, 2]}, "are whole numbers; one is 'a'"),
                         ({"layer_types": ["full_attention"] * 5}, "say different kinds for a layer")):
        with pytest.raises(InputError, match=said):
            read_decoder(PANGU | change, "config.json")


def quantized(change):
    """The tensors of ``llama`` with those of its layers as ``change`` makes them: (module, [n, k]) to tensors."""
    found = {}
    for name, (dtype, shape) in llama().items():
        module = name.removesuffix(".weight")
        found |= change(module, shape) if ".layers." in name and len(shape) == 2 else {name: (dtype, shape)}
    return found


def test_torchao_is_told_by_its_tensors():
    known = read_decoder(LLAMA, "config.json").decoder
    tensors = quantized(lambda module, shape: {f"{module}._weight_qdata": ("I8", shape), f"{module}._weight_zero_point": ("I8", (shape[0], 2)),
                                               f"{module}._weight_scale": ("BF16", (shape[0], 2))})
    found = decoder_from_shapes(tensors, "m", LLAMA, known)
    assert found.decoder.total == known.total
    assert found.decoder.notes[-1] == "the shapes of 16 tensors agree with the config"
    assert str(found.quantization.of("model.layers.0.mlp.down_proj")).startswith("int8")
    assert found.quantization.of("model.layers.0.mlp.down_proj").group == 80


def test_tensors_that_cannot_be_told_decide_nothing():
    """Matrices that nobody can read must not fall out of the count."""
    known = read_decoder(LLAMA, "config.json").decoder
    tensors = quantized(lambda module, shape: {f"{module}.W_q": ("U8", (shape[0] * shape[1] // 32, 16)), f"{module}.scale": ("F16", (4, 1))})
    found = decoder_from_shapes(tensors, "m", LLAMA, known)
    assert found.decoder.total == known.total
    assert "14 tensors of its layers cannot be told, such as model.layers.0.self_attn.q_proj.W_q: the config decides" in found.decoder.notes
    with pytest.raises(InputError, match="14 tensors of its layers that cannot be told"):
        decoder_from_shapes(tensors, "m", {"model_type": "mystery"}, None)
