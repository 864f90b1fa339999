# ImageNet-1k, tested on one corruption and severity of ImageNet-C (arXiv 1903.12261):
# ImageNet-C/<corruption>/<severity>/<synset>/<image>. tools/analysis_tools/robustness.py tests on all of it.
_base_ = './imagenet_bs128_224.py'

data_root = 'data/ImageNet-C'

test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='smmix_mm.SynsetFolders',
        data_root=data_root,
        data_prefix='gaussian_noise/3',
        # The images are crops of 224 x 224 pixels already, which the authors score as they are.
        pipeline=[_base_.test_pipeline[0], _base_.test_pipeline[-1]],
    )
)
