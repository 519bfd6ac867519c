"""The networks: what inflation keeps, what starts as the identity, and what flow must get right."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st

from videogen import storage
from videogen.config import UNetConfig
from videogen.errors import UserError
from videogen.models.temporal_conv import compute_temporal_convolutions_flat
from videogen.models.unet import VideoUNet, build_video_unet
from videogen.stages import build_objective, count_parameters, load_preset
from videogen.stages.decode.network import VideoAutoencoder
from videogen.stages.decode.tiling import decode_in_tiles
from videogen.stages.interpolate.network import FlowInterpolator, backward_warp, blend
from videogen.stages.text.network import build_text_encoder, build_tokenizer, encode_prompts

pytestmark = pytest.mark.model


def sd21_unet(**changes: object) -> UNet2DConditionModel:
    """Return a U-Net of the Stable Diffusion 2.1 layout with small random weights."""
    torch.manual_seed(0)
    arguments = {
        "sample_size": 8,
        "block_out_channels": (32, 64, 64, 64),
        "attention_head_dim": (1, 2, 2, 2),
        "norm_num_groups": 8,
        "cross_attention_dim": 24,
        "use_linear_projection": True,
        "layers_per_block": 2,
    }
    return UNet2DConditionModel(**{**arguments, **changes}).eval()


SD21_WIDTHS = {
    "block_out_channels": [32, 64, 64, 64],
    "attention_levels": [True, True, True, False],
    "layers_per_block": 2,
    "attention_head_dim": 32,
    "norm_num_groups": 8,
}


def inflated(in_channels: int = 9, conditions: tuple[str, ...] = (), **changes: object) -> VideoUNet:
    """Return what a preset of the image model's widths builds, with that model's weights."""
    model = build_video_unet(UNetConfig(**{**SD21_WIDTHS, **changes}), in_channels, 4, 24, 8, conditions)
    model.load_image_model(sd21_unet())
    return model


@pytest.mark.parametrize(("pooled_text", "full_size_attention"), [(False, True), (True, True), (True, False)])
@pytest.mark.parametrize("remote", [False, pytest.param(True, marks=pytest.mark.s3)], ids=["folder", "s3"])
def test_init_from_gives_the_image_models_output_on_every_frame(
    remote: bool,
    pooled_text: bool,
    full_size_attention: bool,
    tiny_model: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    image_model = sd21_unet(cross_attention_dim=64)
    image_model.save_pretrained(tmp_path / "unet")
    source = str(tmp_path)
    if remote:
        source = request.getfixturevalue("s3")
        storage.upload(tmp_path, source)
    widths = [f"base.model.{name}={json.dumps(value)}" for name, value in SD21_WIDTHS.items()]
    settings = ["base.reference_deviation=null", f"base.model.pooled_text={json.dumps(pooled_text)}"]
    settings += [f"base.model.full_size_attention={json.dumps(full_size_attention)}"]
    objective = build_objective("base", load_preset("tiny", [*widths, *settings]), tiny_model, init_from=source)
    noisy, text, timesteps = torch.randn(2, 4, 5, 8, 8), torch.randn(2, 7, 64), torch.tensor([3, 900])
    conditions = {"fps": torch.tensor([8.0, 24.0]), "motion": torch.tensor([1.0, -1.0])}
    with torch.no_grad():
        video = objective.eval().denoiser(
            noisy,
            timesteps,
            text,
            reference=torch.randn(2, 4, 8, 8),
            reference_present=torch.tensor([False, True]),  # text only, and a reference that is not listened to yet
            conditions=conditions,
        )
        for frame in range(noisy.shape[2]):
            image = image_model(noisy[:, :, frame], timesteps, text).sample
            torch.testing.assert_close(video[:, :, frame], image, atol=1e-5, rtol=0)


def test_inflated_unet_learns_through_its_temporal_layers() -> None:
    model = inflated()
    model(torch.randn(1, 9, 4, 8, 8), 500, torch.randn(1, 7, 24)).square().mean().backward()
    moved = {
        name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.abs().max() > 0
    }
    assert any("temp_convs" in name for name in moved)
    assert any("temp_attentions" in name and "proj_out" in name for name in moved)
    assert "conv_in.weight" in moved


def test_a_model_without_image_weights_hears_its_pooled_text_from_the_first_step() -> None:
    model = build_video_unet(UNetConfig(**{**SD21_WIDTHS, "pooled_text": True}), 9, 4, 24, 8, ("fps",))
    scalars, text = model.time_embedding.cond_proj.weight.detach().split([32, 24], dim=1)
    assert not scalars.any()
    assert text.std() > 0.05


@pytest.mark.parametrize(
    ("image_model", "words"),
    [
        ({"attention_head_dim": (2, 2, 2, 2)}, "several widths"),
        ({"attention_head_dim": (2, 4, 4, 4)}, "attention heads of width 16, but the preset 32"),
        ({"norm_num_groups": 4}, "norm_num_groups 4, but the preset 8"),
        (
            {
                "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
                "up_block_types": ("UpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            },
            "lacks the weight 'down_blocks.2.attentions",
        ),
        ({"layers_per_block": 3}, "no place in the video model"),
        ({"block_out_channels": (32, 64, 64, 128), "attention_head_dim": (1, 2, 2, 4)}, "has shape"),
    ],
)
def test_an_image_model_of_another_layout_is_refused(image_model: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        inflated().load_image_model(sd21_unet(**image_model))


def test_gradient_checkpointing_changes_no_gradient() -> None:
    models = [inflated(in_channels=4, gradient_checkpointing=checkpointing) for checkpointing in (False, True)]
    models[1].load_state_dict(models[0].state_dict())
    sample, text = torch.randn(1, 4, 3, 8, 8), torch.randn(1, 7, 24)
    for model in models:
        model.train()(sample, 10, text).square().mean().backward()
    for plain, checkpointed in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(plain.grad, checkpointed.grad)


@pytest.mark.parametrize("layers_per_block", [1, 2])
def test_fresh_video_decoder_equals_the_image_decoder(layers_per_block: int) -> None:
    torch.manual_seed(0)
    image_model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(32, 64),
        layers_per_block=layers_per_block,
        norm_num_groups=8,
    ).eval()
    video_model = VideoAutoencoder.from_image_autoencoder(image_model).eval()
    latents = torch.randn(2, 3, 4, 6, 6)
    with torch.no_grad():
        video = video_model.decode_video(latents)
        images = image_model.decode(latents.flatten(0, 1) / image_model.config.scaling_factor).sample
        encoded = [model.encode(images).latent_dist.mode() for model in (image_model, video_model)]
    torch.testing.assert_close(video.flatten(0, 1), images, atol=1e-5, rtol=0)
    torch.testing.assert_close(*encoded)


@pytest.mark.parametrize("full_size_attention", [False, True])
def test_video_models_survive_saving(full_size_attention: bool, tmp_path: Path) -> None:
    model = inflated(conditions=("fps",), full_size_attention=full_size_attention).eval()
    assert any("transformer_in" in name for name in model.state_dict()) == full_size_attention
    model.save_pretrained(tmp_path)
    loaded = VideoUNet.from_pretrained(tmp_path).eval()
    sample, text = torch.randn(1, 9, 2, 8, 8), torch.randn(1, 7, 24)
    with torch.no_grad():
        # Not to the bit: weights that lie in a mapped file are aligned differently, and some CPUs then sum differently.
        torch.testing.assert_close(loaded(sample, 7, text), model(sample, 7, text), rtol=0, atol=1e-5)
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    assert loaded.config.conditions == ["fps"]
    assert not list(tmp_path.glob("*.bin"))


@settings(max_examples=10, deadline=None)
@given(x=st.integers(-3, 3), y=st.integers(-3, 3))
def test_backward_warp_moves_by_whole_pixels(x: int, y: int) -> None:
    image = torch.randn(1, 2, 12, 12)
    flow = torch.tensor([x, y], dtype=torch.float32).reshape(1, 2, 1, 1).expand(1, 2, 12, 12)
    moved = torch.roll(image, (-y, -x), dims=(2, 3))
    torch.testing.assert_close(
        backward_warp(image, flow)[..., 3:-3, 3:-3], moved[..., 3:-3, 3:-3], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_fresh_interpolation_is_the_linear_blend_and_keeps_key_frames(factor: int) -> None:
    latents = torch.randn(2, 5, 4, 8, 8)
    model = FlowInterpolator(channels=8, scales=(2, 1), refine_channels=8, refine_blocks=1)
    with torch.no_grad():
        result = model.interpolate(latents, factor)
    assert result.shape[1] == factor * 4 + 1
    assert torch.equal(result[:, ::factor], latents)
    torch.testing.assert_close(result, blend(latents, factor), atol=1e-4, rtol=1e-4)


def test_interpolation_learns_a_translation() -> None:
    """A pattern that moves by two pixels: the flow finds it, the linear blend cannot."""
    torch.manual_seed(0)
    model = FlowInterpolator(latent_channels=1, channels=16, scales=(2, 1), refine_channels=8, refine_blocks=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def clips() -> torch.Tensor:
        smooth = torch.nn.functional.avg_pool2d(torch.randn(16, 1, 24, 24), 3, 1, 1)
        return torch.stack([smooth[..., 4:20, 4 - shift : 20 - shift] for shift in (0, 1, 2)], dim=1)

    tau = torch.full((16,), 0.5)
    for _ in range(150):
        first, middle, second = clips().unbind(1)
        loss = (model(first, second, tau) - middle).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    first, middle, second = clips().unbind(1)
    with torch.no_grad():
        parts = model.estimate(first, second, tau)
    error = (parts["latents"] - middle).square().mean()
    assert error < 0.3 * ((first + second) / 2 - middle).square().mean()
    assert parts["visibility"].min() >= 0
    assert parts["visibility"].max() <= 1


def test_tiles_and_chunks_equal_the_whole_where_pieces_agree() -> None:
    """A decoder that looks at nothing but its own pixel must give the same result in pieces."""
    config = load_preset("tiny").decode.model_copy(
        update={"chunk_frames": 5, "overlap_frames": 2, "tile_size": 6, "tile_overlap": 2}
    )

    def decode(latents: torch.Tensor) -> torch.Tensor:
        return latents[:, :, :3].repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)

    latents = torch.randn(2, 13, 4, 15, 9)
    torch.testing.assert_close(decode_in_tiles(decode, latents, config), decode(latents))


def test_words_are_single_tokens_and_any_text_is_legal(tmp_path: Path) -> None:
    config = load_preset("tiny").text
    tokenizer = build_tokenizer(config)
    assert tokenizer.tokenize("a red circle moving left") == [
        f"{w}</w>" for w in ["a", "red", "circle", "moving", "left"]
    ]
    assert tokenizer.unk_token_id not in tokenizer("Straße, 犬 & dog!").input_ids[1:-1]
    tokenizer.save_pretrained(tmp_path)
    loaded = type(tokenizer).from_pretrained(tmp_path)
    assert loaded("a blue square").input_ids == tokenizer("a blue square").input_ids
    encoder = build_text_encoder(config, tokenizer, seed=0)
    alone = encode_prompts(tokenizer, encoder, ["a red circle"])
    together = encode_prompts(tokenizer, encoder, ["a blue square moving up", "a red circle"])
    assert torch.equal(alone[0], together[1])


def test_paper_preset_has_the_papers_size() -> None:
    """SD 2.1 inflated: 866 M parameters of the image model and 545 M temporal ones, at three resolutions."""
    counts = count_parameters(load_preset("paper"))
    assert counts["base"] == pytest.approx(1.411e9, rel=1e-3)
    assert list(counts) == ["base", "upsample_1", "upsample_2", "interpolate", "decode"]


def test_init_from_explains_what_does_not_fit(tiny_model: str, tmp_path: Path) -> None:
    config = load_preset("tiny", ["base.reference_deviation=null"])
    with pytest.raises(UserError, match="no folder 'unet'"):
        build_objective("base", config, tiny_model, init_from=tiny_model)
    sd21_unet().save_pretrained(tmp_path / "unet")
    with pytest.raises(UserError, match="same layout and widths"):
        build_objective("base", config, tiny_model, init_from=str(tmp_path))


def test_init_from_refuses_a_prior_that_image_models_do_not_know(tiny_model: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"base\.reference_deviation is 0\.5, .* --set base\.reference_deviation=null"):
        build_objective("base", load_preset("tiny"), tiny_model, init_from=str(tmp_path))


@pytest.mark.parametrize("stride", [1, 2])
def test_temporal_convolutions_are_the_same_convolutions(stride):
    torch.manual_seed(0)
    plain = torch.nn.Conv3d(6, 4, (3, 1, 1), stride=(stride, 1, 1), padding=(1, 0, 0))
    others = torch.nn.Sequential(plain, torch.nn.Conv3d(4, 4, 3, padding=1), torch.nn.Conv3d(4, 4, 1))
    clip = torch.randn(2, 6, 7, 5, 3, requires_grad=True)
    expected = plain(clip)
    (expected_gradient,) = torch.autograd.grad(expected.square().sum(), clip)
    keys = list(others.state_dict())
    compute_temporal_convolutions_flat(others)
    assert [type(module).__name__ for module in others] == ["TemporalConv3d", "Conv3d", "TemporalConv3d"]
    assert list(others.state_dict()) == keys
    result = plain(clip)
    (gradient,) = torch.autograd.grad(result.square().sum(), clip)
    assert torch.allclose(result, expected, atol=1e-6)
    assert torch.allclose(gradient, expected_gradient, atol=1e-5)
