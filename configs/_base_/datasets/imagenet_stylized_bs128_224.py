# ImageNet-1k, tested on Stylized ImageNet (arXiv 1811.12231), the validation images in the styles of paintings, as
# rgeirhos/Stylized-ImageNet makes it: stylized-imagenet/val/<synset>/<image>.
_base_ = './imagenet_bs128_224.py'

data_root = 'data/stylized-imagenet'

test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='smmix_mm.SynsetFolders',
        data_root=data_root,
        data_prefix='val',
        pipeline=_base_.test_pipeline,
    )
)
