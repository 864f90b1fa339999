# DeepSpeed's ZeRO, stage 1, to add to the _base_ of a config. Not tested; it needs GPUs and the package deepspeed.
# DeepSpeed casts, scales and clips by itself, and its wrapper takes no clip_grad. A config therefore replaces the
# recipe's wrapper (_delete_=True), repeats its optimizer and paramwise_cfg, and moves the value of clip_grad to
# strategy.gradient_clipping. docs/distributed.md has an example.
runner_type = 'FlexibleRunner'
strategy = dict(
    type='DeepSpeedStrategy',
    fp16=dict(enabled=True, fp16_master_weights_and_grads=False, loss_scale=0),
    inputs_to_half=['inputs'],
    zero_optimization=dict(stage=1, overlap_comm=True),
)
