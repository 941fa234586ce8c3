"""Write the averaged weights of a run as a diffusers folder in float16: the built-in prior.

python training/export.py --run WORK/run --out src/deqir/priors/builtin
"""

import argparse
import json
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import save_file

from train import ARCHITECTURE, SCHEDULE

WEIGHTS = "diffusion_pytorch_model.safetensors"


def averaged_weights(run: Path) -> tuple[UNet2DModel, dict[str, torch.Tensor], int]:
    """The model of ``run``, its averaged weights by name, and the step they stand at."""
    state = torch.load(run / "state.pt", map_location="cpu", weights_only=True)
    model = UNet2DModel(**ARCHITECTURE)
    model.load_state_dict(state["model"])
    averaged = dict(zip((name for name, _ in model.named_parameters()), state["average"]["shadow_params"], strict=True))
    return model, averaged, int(state["step"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    model, averaged, step = averaged_weights(args.run)
    args.out.mkdir(parents=True, exist_ok=True)
    half = {name: value.to(torch.float16).contiguous() for name, value in averaged.items()}
    save_file(half, args.out / WEIGHTS, metadata={"format": "pt", "training_steps": str(step)})
    config = {"_class_name": "UNet2DModel", **{k: v for k, v in model.config.items() if not k.startswith("_")}}
    (args.out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    scheduler = DDPMScheduler(**SCHEDULE, prediction_type="v_prediction")
    keep = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "prediction_type")
    settings = {"_class_name": "DDPMScheduler", **{key: scheduler.config[key] for key in keep}}
    (args.out / "scheduler_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    size = (args.out / WEIGHTS).stat().st_size
    print(f"step {step}: {sum(v.numel() for v in half.values()):,} parameters, {size / 1e6:.1f} MB in {args.out}")


if __name__ == "__main__":
    main()
