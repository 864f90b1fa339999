# ImageNet-1k, tested on ImageNet-Sketch (arXiv 1905.13549), 50 889 drawings in black and white:
# ImageNet-Sketch/sketch/<synset>/<image>.
_base_ = './imagenet_bs128_224.py'

data_root = 'data/ImageNet-Sketch'

test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='smmix_mm.SynsetFolders',
        data_root=data_root,
        data_prefix='sketch',
        pipeline=_base_.test_pipeline,
    )
)
