# ImageNet-1k, tested on ImageNet-A (arXiv 1907.07174), 7 500 images of 200 classes that a ResNet-50 gets wrong:
# imagenet-a/<synset>/<image>.
_base_ = './imagenet_bs128_224.py'

data_root = 'data/imagenet-a'

test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='smmix_mm.SynsetFolders',
        data_root=data_root,
        subset='imagenet_a',
        pipeline=_base_.test_pipeline,
    )
)
test_evaluator = dict(type='smmix_mm.SubsetAccuracy')
