# ImageNet-1k, tested on ImageNet-R (arXiv 2006.16241), 30 000 renditions of 200 classes, such as paintings and toys:
# imagenet-r/<synset>/<image>.
_base_ = './imagenet_bs128_224.py'

data_root = 'data/imagenet-r'

test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='smmix_mm.SynsetFolders',
        data_root=data_root,
        subset='imagenet_r',
        pipeline=_base_.test_pipeline,
    )
)
test_evaluator = dict(type='smmix_mm.SubsetAccuracy')
