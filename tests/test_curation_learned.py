"""Plug-ins on local weights: tiny random models, saved and loaded as real ones are."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from videogen.data.curation.learned import AestheticScore, Captioner, ClipEmbedding, fingerprint
from videogen.errors import UserError

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 40, 56, 3), np.uint8)
WIDTH = 24
LAYERS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{number}" for number in range(27))]


def save_clip(folder) -> None:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    torch.manual_seed(0)
    text = {**LAYERS, "vocab_size": 99, "max_position_embeddings": 16}
    vision = {**LAYERS, "image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)).save_pretrained(folder)
    size = {"shortest_edge": 32}
    CLIPImageProcessor(size=size, crop_size={"height": 32, "width": 32}).save_pretrained(folder)


def tiny_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertTokenizerFast

    raw = Tokenizer(models.WordPiece({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    return BertTokenizerFast(tokenizer_object=raw)


def save_blip(folder) -> None:
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    text = {**LAYERS, "vocab_size": len(WORDS), "max_position_embeddings": 64, "projection_dim": 16}
    text |= {"encoder_hidden_size": 32, "bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    vision = {**LAYERS, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    processor = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(image_processor=processor, tokenizer=tiny_tokenizer()).save_pretrained(folder)


def save_git(folder) -> None:
    from transformers import CLIPImageProcessor, GitConfig, GitForCausalLM, GitProcessor

    vision = {**LAYERS, "image_size": 32, "patch_size": 8}
    ends = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    torch.manual_seed(0)
    text = {"vocab_size": len(WORDS), "max_position_embeddings": 64}
    GitForCausalLM(GitConfig(vision_config=vision, **LAYERS, **text, **ends)).save_pretrained(folder)
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    GitProcessor(image_processor=processor, tokenizer=tiny_tokenizer()).save_pretrained(folder)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    save_clip(folder)
    return folder


@pytest.fixture(scope="session")
def blip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blip")
    save_blip(folder)
    return folder


@pytest.fixture
def head_folder(tmp_path):
    """Return a folder with a head in the form of LAION's: two layers and nothing between them."""
    folder = tmp_path / "head"
    folder.mkdir()
    generator = torch.Generator().manual_seed(1)
    shapes = {"layers.0.weight": (8, WIDTH), "layers.0.bias": (8,), "layers.2.weight": (1, 8), "layers.2.bias": (1,)}
    save_file(
        {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}, folder / "head.safetensors"
    )
    return folder


def test_an_embedding_is_what_clip_says_of_each_frame(clip_folder):
    from transformers import CLIPImageProcessor, CLIPModel

    embedding = ClipEmbedding.from_pretrained(str(clip_folder))
    model, processor = CLIPModel.from_pretrained(clip_folder).eval(), CLIPImageProcessor.from_pretrained(clip_folder)
    with torch.no_grad():
        pixels = processor(images=list(FRAMES), return_tensors="pt")["pixel_values"]
        expected = model.visual_projection(model.vision_model(pixels).pooler_output).numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    vectors = embedding.of_frames(FRAMES)
    assert vectors.shape == (3, embedding.width) == (3, WIDTH)
    assert vectors == pytest.approx(expected, abs=1e-5)
    whole = embedding(FRAMES)
    assert whole.dtype == np.float16
    mean = expected.mean(axis=0)
    assert whole == pytest.approx(mean / np.linalg.norm(mean), abs=1e-3)


def test_the_same_weights_and_frames_give_the_same_bits(clip_folder, blip_folder, head_folder):
    for make in (
        lambda: ClipEmbedding.from_pretrained(str(clip_folder))(FRAMES).tobytes(),
        lambda: AestheticScore.from_pretrained(str(head_folder), ClipEmbedding.from_pretrained(str(clip_folder)))(
            FRAMES
        ),
        lambda: Captioner.from_pretrained(str(blip_folder))(FRAMES),
    ):
        assert make() == make()


def test_frames_are_looked_at_one_by_one(clip_folder):
    embedding = ClipEmbedding.from_pretrained(str(clip_folder))
    many = np.concatenate([FRAMES] * 7)
    assert embedding.of_frames(many)[-3:] == pytest.approx(embedding.of_frames(FRAMES), abs=1e-5)
    assert embedding(FRAMES[::-1]) == pytest.approx(embedding(FRAMES), abs=1e-3)


@pytest.mark.parametrize("activation", ["none", "relu"])
def test_an_aesthetic_score_is_the_head_on_each_frame(clip_folder, head_folder, activation):
    tensors = load_file(head_folder / "head.safetensors")
    save_file(tensors, head_folder / "head.safetensors", metadata={"activation": activation})
    embedding = ClipEmbedding.from_pretrained(str(clip_folder))
    score = AestheticScore.from_pretrained(str(head_folder), embedding)
    between = torch.nn.ReLU() if activation == "relu" else torch.nn.Identity()
    hidden = torch.from_numpy(embedding.of_frames(FRAMES)) @ tensors["layers.0.weight"].T + tensors["layers.0.bias"]
    expected = between(hidden) @ tensors["layers.2.weight"].T + tensors["layers.2.bias"]
    assert score(FRAMES) == pytest.approx(expected.mean().item(), abs=1e-5)


def test_a_head_may_lie_beside_its_clip_model(clip_folder, head_folder, tmp_path):
    both = tmp_path / "both"
    shutil.copytree(clip_folder, both)
    shutil.copy(head_folder / "head.safetensors", both)
    apart = AestheticScore.from_pretrained(str(head_folder), ClipEmbedding.from_pretrained(str(clip_folder)))
    assert AestheticScore.from_pretrained(str(both))(FRAMES) == apart(FRAMES)


@pytest.mark.parametrize("save", [save_blip, save_git])
def test_a_caption_is_what_the_model_says_of_the_middle_frame(save, tmp_path):
    save(tmp_path)
    captioner = Captioner.from_pretrained(str(tmp_path), max_tokens=6)
    caption = captioner(FRAMES)
    assert caption
    assert set(caption.split()) <= {f"word{number}" for number in range(27)}
    assert len(caption.split()) <= 6
    assert captioner(FRAMES[1:2]) == caption


def test_weights_may_lie_on_s3(clip_folder, s3):
    from videogen import storage

    storage.upload(clip_folder, f"{s3}/clip")
    local = ClipEmbedding.from_pretrained(str(clip_folder))
    assert ClipEmbedding.from_pretrained(f"{s3}/clip")(FRAMES).tobytes() == local(FRAMES).tobytes()
    assert fingerprint(f"{s3}/clip") == fingerprint(str(clip_folder))


def test_a_fingerprint_changes_with_the_weights(clip_folder, tmp_path):
    other = tmp_path / "clip"
    shutil.copytree(clip_folder, other)
    assert fingerprint(str(other)) == fingerprint(str(clip_folder))
    weights = load_file(other / "model.safetensors")
    weights["logit_scale"] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint(str(other)) != fingerprint(str(clip_folder))


# --- what is refused ---------------------------------------------------------------------------------------------


def refused(load, folder) -> str:
    with pytest.raises(UserError) as caught:
        load(str(folder))
    sentence = str(caught.value)
    assert str(folder) in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


@pytest.mark.parametrize(
    "load", [ClipEmbedding.from_pretrained, Captioner.from_pretrained, AestheticScore.from_pretrained]
)
def test_pickled_weights_are_refused_unread(load, clip_folder, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(clip_folder, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pytorch_model.bin" in refused(load, folder)


@pytest.mark.parametrize(
    "load", [ClipEmbedding.from_pretrained, Captioner.from_pretrained, AestheticScore.from_pretrained]
)
def test_folders_without_weights_are_refused(load, tmp_path):
    assert "does not exist" in refused(load, tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no weights")
    assert "no weights" in refused(load, tmp_path)
    assert "is a file" in refused(load, tmp_path / "notes.txt")


def test_another_kind_of_model_is_refused(clip_folder, blip_folder):
    assert "'blip'" in refused(ClipEmbedding.from_pretrained, blip_folder)
    assert "'clip'" in refused(Captioner.from_pretrained, clip_folder)
    assert "head.safetensors" in refused(AestheticScore.from_pretrained, clip_folder)


def test_folders_are_looked_at_before_anything_is_loaded(clip_folder, blip_folder, head_folder, tmp_path):
    assert ClipEmbedding.check(str(clip_folder)) == WIDTH
    Captioner.check(str(blip_folder))
    AestheticScore.check(str(head_folder), WIDTH)
    with pytest.raises(UserError, match="give the head of this CLIP model"):
        AestheticScore.check(str(head_folder), WIDTH + 1)
    with pytest.raises(UserError, match="is a model of type 'blip'"):
        ClipEmbedding.check(str(blip_folder))
    shutil.copytree(clip_folder, tmp_path / "bare")
    (tmp_path / "bare" / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match="no preprocessor beside its weights"):
        ClipEmbedding.check(str(tmp_path / "bare"))


def test_a_model_that_lacks_weights_is_refused_not_filled_with_random_ones(clip_folder, tmp_path):
    folder = tmp_path / "clip"
    shutil.copytree(clip_folder, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "visual_projection.weight" in refused(ClipEmbedding.from_pretrained, folder)


def test_a_damaged_model_is_refused(clip_folder, blip_folder, tmp_path):
    folder = tmp_path / "clip"
    shutil.copytree(clip_folder, folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "cannot be loaded" in refused(ClipEmbedding.from_pretrained, folder)
    (folder / "config.json").write_text(json.dumps({"hidden_size": 3}))
    assert "model_type" in refused(ClipEmbedding.from_pretrained, folder)
    silent = tmp_path / "blip"
    shutil.copytree(blip_folder, silent, ignore=shutil.ignore_patterns("*token*", "*processor*", "vocab*"))
    assert "processor" in refused(Captioner.from_pretrained, silent)


@pytest.mark.parametrize(
    ("tensors", "named"),
    [
        ({"layers.0.weight": torch.zeros(1, WIDTH + 1)}, f"{WIDTH} numbers are expected"),
        ({"layers.0.weight": torch.zeros(2, WIDTH)}, "gives 2 numbers"),
        ({"bias": torch.zeros(2)}, "no layer"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(clip_folder, head_folder, tensors, named):
    save_file(tensors, head_folder / "head.safetensors")
    embedding = ClipEmbedding.from_pretrained(str(clip_folder))
    assert named in refused(lambda uri: AestheticScore.from_pretrained(uri, embedding), head_folder)
