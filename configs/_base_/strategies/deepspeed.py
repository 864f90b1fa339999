# DeepSpeed's ZeRO in its first stage: one more entry of a config's _base_. Not tested here; it needs GPUs and the
# package deepspeed. DeepSpeed casts, scales and clips by itself, and its wrapper takes no clip_grad, so a leaf replaces
# the recipe's wrapper (_delete_=True) and repeats its optimizer and paramwise_cfg. What the recipe has in clip_grad
# goes to strategy.gradient_clipping. docs/distributed.md has an example.
runner_type = 'FlexibleRunner'
strategy = dict(
    type='DeepSpeedStrategy',
    fp16=dict(enabled=True, fp16_master_weights_and_grads=False, loss_scale=0),
    inputs_to_half=['inputs'],
    zero_optimization=dict(stage=1, overlap_comm=True),
)
