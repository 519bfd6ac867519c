"""Raw video to finished video and the report on it, every URI on S3: the jobs' own command lines, a moto server."""

import io
import shutil

import pandas as pd

from tests.conftest import load_job
from videogen import storage
from videogen.data.video import probe

# Five steps of every stage: nothing is learned, but everything is read, written and handed on.
FIVE_STEPS = [
    f"{stage}.training.{setting}"
    for stage in ("autoencoder", "reference", "base", "upsample.0", "interpolate", "decode")
    for setting in ("steps=5", "batch_size=2", "warmup_steps=1", "log_every=5")
]


def test_every_job_from_encode_to_report_with_every_uri_on_s3(
    s3, ray_cluster, world_corpus, camera_clip, tmp_path, tiny
):
    storage.upload(world_corpus, f"{s3}/raw/captioned")
    (tmp_path / "unlabeled").mkdir()
    shutil.copy(camera_clip, tmp_path / "unlabeled")
    storage.upload(tmp_path / "unlabeled", f"{s3}/raw/unlabeled")
    prompts = pd.DataFrame({"id": ["one", "two"], "prompt": ["a red circle moving left", "a blue square moving up"]})
    storage.write_bytes(f"{s3}/prompts.parquet", prompts.to_parquet())

    encode = load_job("encode_latents").main
    options = ["--preset", "tiny", "--set", *FIVE_STEPS]
    captions = f"{s3}/raw/captioned/captions.parquet"
    captioned = ["--input", f"{s3}/raw/captioned", "--captions", captions, "--output", f"{s3}/latents/captioned"]
    encode([*captioned, *options])
    autoencoder = ["--autoencoder", f"{s3}/latents/captioned/autoencoder"]
    encode(["--input", f"{s3}/raw/unlabeled", "--output", f"{s3}/latents/unlabeled", *autoencoder, *options])
    assert storage.read_json(f"{s3}/latents/captioned/manifest.json")

    load_job("train_cascade").main(["--data", f"{s3}/latents", "--output", f"{s3}/model", *options])
    index = storage.read_json(f"{s3}/model/model_index.json")
    for component in ("text_encoder", "autoencoder", "reference", "base", "upsample", "interpolate", "decode"):
        assert component in index or component in str(index)
        assert storage.list_files(f"{s3}/model/{component}", [".safetensors"])

    generate = ["--model", f"{s3}/model", "--prompts", f"{s3}/prompts.parquet", "--output", f"{s3}/generated"]
    load_job("generate").main([*generate, "--save-intermediates"])
    manifest = pd.read_parquet(io.BytesIO(storage.read_bytes(f"{s3}/generated/manifest.parquet"))).set_index("id")
    assert list(manifest["status"]) == ["ok", "ok"], manifest["error"].tolist()
    for name in ("one", "two"):
        video = probe(f"{s3}/generated/videos/{name}.mp4")
        assert (video.num_frames, video.width, video.height) == (
            tiny.num_output_frames,
            tiny.resolution,
            tiny.resolution,
        )
        assert manifest.loc[name, "num_frames"] == tiny.num_output_frames

    evaluate = ["--model", f"{s3}/model", "--data", f"{s3}/raw/captioned", "--generated", f"{s3}/generated"]
    load_job("evaluate").main([*evaluate, "--output", f"{s3}/evaluation.json", "--max-clips", "2"])
    evaluation = storage.read_json(f"{s3}/evaluation.json")
    assert evaluation["num_prompts"] == 2
    for name in ("decoder_psnr_db", "image_decoder_psnr_db", "interpolation_psnr_db", "blend_psnr_db"):
        assert evaluation[name] > 0, name

    report = ["--model", f"{s3}/model", "--generated", f"{s3}/generated", "--evaluation", f"{s3}/evaluation.json"]
    load_job("report").main([*report, "--output", f"{s3}/report"])
    page = storage.read_text(f"{s3}/report/index.html")
    for shown in ("a red circle moving left", *(f'data-media="two/{name}"' for name in ("base", "upsample", "decode"))):
        assert shown in page, shown
