"""A frozen model that motivates in the place of the one under training."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import OptimWrapper

from smmix_mm.adapters import build_adapter
from smmix_mm.checkpoint import write_weights
from smmix_mm.mixing import MixingMethod
from smmix_mm.registry import BATCH_AUGMENTS
from smmix_mm.structures import MixedBatch, Question, settle_questions

BOTH = Question(attention=True, logits=True)
SMMIX = [dict(type='smmix_mm.SMMix')]
FAMILIES = pytest.mark.parametrize(('student', 'teacher'), [('vit', 'vit'), ('vit', 'pvt'), ('pvt', 'vit')])


@BATCH_AUGMENTS.register_module(force=True)
class AskEverything(MixingMethod):
    """Mixes nothing; needs a teacher's class maps."""

    questions = (Question(class_map=True, by='teacher'),)

    def forward(self, images, targets, answers, streams):
        return MixedBatch(images, targets)


@pytest.fixture
def make_teacher(make_classifier, tmp_path):
    """Writes the weights of a tiny classifier; returns it and the config that names them."""

    def make(family='vit', name='teacher.pth', **settings):
        made = make_classifier(family, type='mmpretrain.ImageClassifier', **settings)
        path = write_weights(tmp_path / name, made.state_dict())
        from conftest import backbone_cfg, head_cfg

        cfg = dict(
            type='mmpretrain.ImageClassifier',
            backbone=backbone_cfg(family, **(settings.get('backbone') or {})),
            head=settings.get('head') or head_cfg(family),
            init_cfg=dict(type='Pretrained', checkpoint=str(path)),
        )
        return made.eval(), cfg

    return make


def train_step(model, images, samples):
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    wrapper.update_params(sum(model.loss(images, samples).values()))


@FAMILIES
@torch.no_grad()
def test_a_teacher_tells_what_it_would_say_by_itself(make_classifier, make_teacher, student, teacher):
    alone, cfg = make_teacher(teacher)
    model = make_classifier(student, augments=SMMIX, teacher=cfg).train()
    model.init_weights()
    images, labels = torch.randn(3, 3, 32, 32), torch.eye(5)[[0, 3, 4]]
    told = model.motivate(replace(BOTH, class_map=True, activation=True), images, labels)
    features = build_adapter(alone.backbone).read(images, attention=True)
    assert told.logits.equal(alone(images))
    assert told.attention.equal(features.attention)
    assert told.grid == (4, 4)
    assert told.activation.equal(features.tokens.mean(2).unflatten(1, (4, 4)))
    # The classifier at every token, one after the other.
    for image in range(3):
        for token in range(16):
            scores = alone.head((features.tokens[image : image + 1, token],))[0]
            assert told.class_map[image, token // 4, token % 4].item() == pytest.approx(
                scores[labels[image].argmax()].item(), abs=1e-5
            )
    # Asked for by name, the model under training speaks for itself.
    own = model.motivate(replace(BOTH, by='model'), images)
    assert own.logits.equal(model.eval()(images))
    assert not own.logits.equal(told.logits)


@torch.no_grad()
def test_another_token_grid_is_resampled_to_the_students(make_classifier, make_teacher):
    alone, cfg = make_teacher('vit', backbone=dict(patch_size=4))
    model = make_classifier('vit', augments=SMMIX, teacher=cfg)
    model.init_weights()
    images = torch.randn(2, 3, 32, 32)
    told = model.motivate(replace(BOTH, class_map=True), images, torch.eye(5)[:2])
    fine = build_adapter(alone.backbone).read(images, attention=True).attention
    assert told.grid == (4, 4) and fine.shape == (2, 8, 8)
    # Unless the method mixes on a grid of its own.
    own = model.motivate(replace(BOTH, own_grid=True), images)
    assert own.grid == (8, 8) and own.attention.equal(fine)
    # The map stays the teacher's: methods bring it to a grid of their own.
    assert told.class_map.shape == (2, 8, 8)
    # Halved with a triangle of four: weights 1/8, 3/8, 3/8, 1/8, those beyond the edge left out.
    weights = torch.zeros(4, 8)
    for row in range(4):
        for place, weight in zip(range(2 * row - 1, 2 * row + 3), (1, 3, 3, 1), strict=True):
            if 0 <= place < 8:
                weights[row, place] = weight
    weights = weights / weights.sum(1, keepdim=True)
    torch.testing.assert_close(told.attention, weights @ fine @ weights.T)


@FAMILIES
def test_a_teacher_leaves_no_trace_in_the_model(make_classifier, make_teacher, make_samples, student, teacher):
    _, cfg = make_teacher(teacher)
    plain = make_classifier(student, augments=SMMIX)
    model = make_classifier(student, augments=SMMIX, teacher=cfg)
    model.init_weights()
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert len(list(model.modules())) == len(list(plain.modules()))
    frozen = copy.deepcopy(model.teacher.model.state_dict())
    ran_with_gradients = []
    model.teacher.model.register_forward_hook(lambda *args: ran_with_gradients.append(torch.is_grad_enabled()))
    model.teacher.model.backbone.register_forward_hook(lambda *args: ran_with_gradients.append(torch.is_grad_enabled()))
    model.train()
    for _ in range(3):
        train_step(model, torch.randn(4, 3, 32, 32), make_samples([0, 1, 2, 3]))
    assert ran_with_gradients == [False] * 3
    assert not any(module.training for module in model.teacher.model.modules())
    for name, value in model.teacher.model.state_dict().items():
        assert value.equal(frozen[name]), name
    assert all(parameter.grad is None for parameter in model.teacher.model.parameters())


def test_a_teacher_is_shared_by_copies_and_follows_the_images(make_classifier, make_teacher):
    alone, cfg = make_teacher()
    model = make_classifier(augments=SMMIX, teacher=cfg)
    model.init_weights()
    averaged = ExponentialMovingAverage(model)
    assert averaged.module.teacher is model.teacher
    assert averaged.module.adapter.backbone is averaged.module.backbone
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    told = model.double().motivate(BOTH, images)
    # In the precision that it came with.
    assert told.logits.equal(alone(images.float()))
    # To the device of the images, wherever the model was put: meta tensors stand for another device here.
    meta = model.to('meta').motivate(BOTH, images.to('meta'))
    assert meta.logits.device.type == meta.attention.device.type == 'meta'
    assert next(model.teacher.model.parameters()).device.type == 'meta'


@pytest.mark.parametrize('how', ['own', 'of its backbone', 'instance', 'a full checkpoint of training'])
@torch.no_grad()
def test_where_the_weights_come_from(make_classifier, make_teacher, how):
    alone, cfg = make_teacher('pvt')
    augments = SMMIX
    if how == 'of its backbone':
        cfg['backbone']['init_cfg'] = cfg.pop('init_cfg')
        augments = [dict(type='smmix_mm.SMMix', loss=dict(con_weight=0))]
    elif how == 'instance':
        cfg = alone
    elif how == 'a full checkpoint of training':
        trained = make_classifier('pvt', augments=SMMIX)
        trained.load_state_dict(alone.state_dict(), strict=False)
        weights = {**trained.state_dict(), 'mixing.methods.0.block.weight': torch.ones(2)}
        write_weights(cfg['init_cfg']['checkpoint'], weights)
    model = make_classifier(augments=augments, teacher=cfg)
    if how != 'instance':
        with pytest.raises(RuntimeError, match=r'no weights yet: call init_weights\(\)'):
            model.motivate(BOTH, torch.randn(1, 3, 32, 32))
    model.init_weights()
    images = torch.randn(2, 3, 32, 32)
    assert model.teacher.model.backbone(images)[0].equal(alone.backbone(images)[0])
    if how != 'of its backbone':
        assert model.motivate(BOTH, images).logits.equal(alone(images))


def test_weights_that_do_not_fit_are_refused(make_classifier, make_teacher, tmp_path):
    alone, cfg = make_teacher()
    for name, change in {
        'missing': lambda weights: weights.pop('backbone.cls_token'),
        'another shape': lambda weights: weights.update({'head.layers.head.weight': torch.zeros(5, 7)}),
        'unexpected': lambda weights: weights.update({'neck.weight': torch.zeros(5)}),
    }.items():
        weights = alone.state_dict()
        change(weights)
        cfg['init_cfg']['checkpoint'] = str(write_weights(tmp_path / f'{name}.pth', weights))
        model = make_classifier(augments=SMMIX, teacher=cfg)
        with pytest.raises(ValueError, match=rf'{name}\.pth does not fit ImageClassifier'):
            model.init_weights()
    cfg['init_cfg']['checkpoint'] = str(tmp_path / 'none.pth')
    model = make_classifier(augments=SMMIX, teacher=cfg)
    with pytest.raises(FileNotFoundError, match=r'none\.pth'):
        model.init_weights()
    # Evaluation needs no teacher.
    assert model.eval()(torch.randn(1, 3, 32, 32)).shape == (1, 5)


def test_a_pretrained_backbone_alone_knows_no_classes(make_classifier, make_teacher, tmp_path):
    alone, cfg = make_teacher()
    cfg['backbone']['init_cfg'] = cfg.pop('init_cfg')
    before = copy.deepcopy(cfg)
    for augments in (SMMIX, [dict(type='smmix_mm.AskEverything')]):
        with pytest.raises(ValueError, match=r'(SMMix|AskEverything) also needs weights for the head of the teacher'):
            make_classifier(augments=augments, teacher=cfg)
    assert cfg == before
    # A part of it is not enough either, whatever mmengine would take.
    weights = {name: value for name, value in alone.state_dict().items() if 'layers.2' not in name}
    cfg['backbone']['init_cfg']['checkpoint'] = str(write_weights(tmp_path / 'part.pth', weights))
    model = make_classifier(augments=[dict(type='smmix_mm.SMMix', loss=dict(con_weight=0))], teacher=cfg)
    with pytest.raises(ValueError, match=r'part\.pth does not fit VisionTransformer'):
        model.init_weights()


def test_a_teacher_of_differently_normalised_images_is_refused(make_classifier, make_teacher):
    _, cfg = make_teacher()
    ours, others = dict(mean=[1.0] * 3, std=[2.0] * 3), dict(mean=[1.0] * 3, std=[3.0] * 3)
    make_classifier(augments=SMMIX, teacher=cfg | dict(data_preprocessor=ours), data_preprocessor=ours)
    # Without one of its own it is taken to know what it gets.
    make_classifier(augments=SMMIX, teacher=cfg, data_preprocessor=ours)
    with pytest.raises(ValueError, match=r"normalised by .*'std': \[2.0.*its own data_preprocessor has .*\[3.0"):
        make_classifier(augments=SMMIX, teacher=cfg | dict(data_preprocessor=others), data_preprocessor=ours)


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_a_teacher_in_another_precision(make_classifier, dtype):
    teacher = make_classifier(type='mmpretrain.ImageClassifier').to(dtype)
    model = make_classifier(augments=[dict(type='smmix_mm.AskEverything'), *SMMIX], teacher=teacher)
    images = torch.randn(2, 3, 32, 32)
    told = model.motivate(replace(BOTH, class_map=True), images, torch.eye(5)[:2])
    assert told.logits.dtype == next(teacher.parameters()).dtype == dtype
    assert told.logits.equal(teacher(images.to(dtype)))


def test_bad_teachers_are_refused_by_name(make_classifier, make_teacher):
    _, cfg = make_teacher()
    with pytest.raises(ValueError, match=r'AskEverything needs a teacher for class_map, but teacher of .* is None'):
        make_classifier(augments=[dict(type='smmix_mm.AskEverything')])
    with pytest.raises(ValueError, match=r'SMMix needs a teacher for attention, logits'):
        make_classifier(augments=[dict(type='smmix_mm.SMMix', motivated_by='teacher')])
    with pytest.raises(ValueError, match=r'teacher needs weights.*init_cfg=None'):
        make_classifier(augments=SMMIX, teacher={key: value for key, value in cfg.items() if key != 'init_cfg'})
    with pytest.raises(ValueError, match=r'needs the path of a checkpoint, but got None'):
        make_classifier(augments=SMMIX, teacher=cfg | dict(init_cfg=dict(type='Pretrained')))
    conformer = dict(type='mmpretrain.Conformer', arch='tiny')
    with pytest.raises(ValueError, match=r'teacher: Conformer returns several tensors'):
        make_classifier(augments=SMMIX, teacher=cfg | dict(backbone=conformer | dict(init_cfg=cfg['init_cfg'])))
    with pytest.raises(ValueError, match=r'teacher has to be a classifier.*VisionTransformer'):
        make_classifier(augments=SMMIX, teacher=cfg['backbone'] | dict(init_cfg=cfg['init_cfg']))


def test_a_teacher_of_other_classes(make_classifier, make_teacher):
    head = dict(type='mmpretrain.VisionTransformerClsHead', num_classes=7, in_channels=32)
    _, cfg = make_teacher(head=head)
    for augments in (SMMIX, [dict(type='smmix_mm.AskEverything')]):
        with pytest.raises(ValueError, match=r'teacher needs num_classes=5.*but has 7'):
            make_classifier(augments=augments, teacher=cfg)
    # Its attention knows no classes.
    make_classifier(augments=[dict(type='smmix_mm.SMMix', loss=dict(con_weight=0))], teacher=cfg)


@pytest.mark.parametrize('neck', [None, dict(type='mmpretrain.LinearNeck', in_channels=32, out_channels=32)])
def test_a_teacher_that_cannot_give_class_maps(make_classifier, make_teacher, neck):
    head = dict(type='mmpretrain.ArcFaceClsHead', num_classes=5, in_channels=32)
    cfg = dict(make_teacher()[1], **(dict(neck=neck) if neck else dict(head=head)))
    with pytest.raises(ValueError, match=r'teacher lacks the class maps that AskEverything needs: its (neck|head)'):
        make_classifier(augments=[dict(type='smmix_mm.AskEverything')], teacher=cfg)


def test_hidden_layers_of_a_head_are_part_of_the_class_maps(make_classifier, make_teacher):
    head = dict(type='mmpretrain.VisionTransformerClsHead', num_classes=5, in_channels=32, hidden_dim=16)
    alone, cfg = make_teacher(head=head)
    model = make_classifier(augments=[dict(type='smmix_mm.AskEverything')], teacher=cfg)
    model.init_weights()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        told = model.motivate(Question(class_map=True), images, torch.eye(5)[[1, 4]])
        tokens = build_adapter(alone.backbone).read(images).tokens
        for image, label in enumerate((1, 4)):
            expected = torch.stack([alone.head((token.unsqueeze(0),))[0, label] for token in tokens[image]])
            torch.testing.assert_close(told.class_map[image].flatten(), expected)


@pytest.mark.parametrize(
    ('size', 'scale', 'small'), [((32, 32), 0.5, (16, 16)), ((64, 32), 0.4, (24, 16)), ((40, 56), 0.5, (16, 24))]
)
@pytest.mark.parametrize('family', ['vit', 'pvt'])
@torch.no_grad()
def test_a_motivation_at_a_lower_resolution(make_classifier, family, size, scale, small):
    model, images = make_classifier(family, size).eval(), torch.randn(2, 3, *size)
    told = model.motivate(replace(BOTH, scale=scale), images)
    resized = F.interpolate(images, small, mode='bilinear', align_corners=False, antialias=True)
    features = build_adapter(model.backbone).read(resized, attention=True)
    assert told.logits.equal(model(resized))
    assert told.grid == (size[0] // 8, size[1] // 8)
    assert told.attention.shape[1:] == told.grid
    assert features.attention.shape[1:] == (small[0] // 8, small[1] // 8)
    expected = F.interpolate(features.attention[:, None], told.grid, mode='bilinear', antialias=True)[:, 0]
    torch.testing.assert_close(told.attention, expected)


def test_a_backbone_that_cannot_run_at_the_lower_resolution_is_named(make_classifier, make_samples):
    model = make_classifier('swin', augments=[dict(type='smmix_mm.SMMix', motivation_scale=0.5)]).train()
    words = r'window_size=4 of SwinTransformer needs at least 4 tokens .* images of 16 x 16 pixels give 2 x 2'
    with pytest.raises(ValueError, match=words):
        model.loss(torch.randn(2, 3, 32, 32), make_samples([0, 1]))
    # Where it can, it does: several windows become one.
    large = make_classifier('swin', (64, 64), augments=[dict(type='smmix_mm.SMMix', motivation_scale=0.5)]).train()
    sum(large.loss(torch.randn(2, 3, 64, 64), make_samples([0, 1])).values()).backward()
    assert large.motivate(replace(BOTH, scale=0.5), torch.randn(2, 3, 64, 64)).attention.shape == (2, 8, 8)


@pytest.mark.parametrize('family', ['vit', 'pvt'])
def test_gradients_at_the_images_and_nowhere_else(make_classifier, family):
    model = make_classifier(family).train()
    images = torch.randn(2, 3, 32, 32)
    question = Question(logits=True, by='model', input_gradient=lambda logits, targets: logits.square().sum())
    told = model.motivate(question, images)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not (images.requires_grad or told.logits.requires_grad)
    expected = images.clone().requires_grad_()
    model.eval()(expected).square().sum().backward()
    torch.testing.assert_close(told.input_gradient, expected.grad)
    assert told.input_gradient.abs().sum() > 0
    assert told.logits.equal(model(images))


@pytest.mark.parametrize('settings', [dict(placement='cutmix', loss=dict(con_weight=0))])
def test_a_method_that_asks_nothing_needs_no_teacher(make_classifier, settings):
    make_classifier(augments=[dict(type='smmix_mm.SMMix', motivated_by='teacher', **settings)])


def test_a_model_without_teacher_says_so(make_classifier):
    with pytest.raises(ValueError, match=r"has no teacher, but by='teacher'"):
        make_classifier().motivate(replace(BOTH, by='teacher'), torch.randn(1, 3, 32, 32))


def counted(model):
    """Passes of a classifier's backbone so far."""
    passes = []
    model.backbone.register_forward_pre_hook(lambda *args: passes.append(1))
    return passes


@pytest.mark.parametrize(
    ('motivated_by', 'has_teacher', 'reconstruction', 'scale'),
    [
        case
        for case in itertools.product(
            (None, 'model', 'teacher'), (False, True), (None, 'transmix', 'tokenmix'), (1.0, 0.5)
        )
        # Refused: these need a teacher.
        if case[1] or (case[0] != 'teacher' and case[2] != 'tokenmix')
    ],
)
def test_each_model_that_is_asked_runs_once_a_step(
    make_classifier, make_samples, motivated_by, has_teacher, reconstruction, scale
):
    """Beside the one forward that is trained on."""
    teacher = make_classifier(type='mmpretrain.ImageClassifier') if has_teacher else None
    settings = dict(motivated_by=motivated_by, label_reconstruction=reconstruction, motivation_scale=scale)
    model = make_classifier(augments=[dict(type='smmix_mm.SMMix', **settings)], teacher=teacher).train()
    by_model, by_teacher = counted(model), counted(teacher) if teacher else []
    model.loss(torch.randn(2, 3, 32, 32), make_samples([0, 1]))
    asks_model = motivated_by == 'model' or not has_teacher
    assert len(by_model) == 1 + asks_model
    assert len(by_teacher) == (not asks_model or reconstruction == 'tokenmix')


def test_questions_to_one_model_become_one():
    first, second = Question(attention=True, scale=0.5, autocast=False), Question(class_map=True, by='teacher')
    merged = Question(attention=True, class_map=True, by='teacher', scale=0.5, autocast=False)
    assert settle_questions([first, second], has_teacher=True) == (merged, merged)
    assert settle_questions([first, second], has_teacher=False) == (replace(first, by='model'), second)
    assert settle_questions([], has_teacher=True) == ()
    assert Question().asked == ()
    assert merged.asked == ('attention', 'class_map')
    assert merged.needs_teacher and not first.needs_teacher and not Question(by='teacher').needs_teacher


@pytest.mark.parametrize('reconstruction', ['transmix', 'tokenmix'])
@pytest.mark.parametrize('family', ['vit', 'pvt'])
def test_training_with_reconstructed_labels(make_classifier, make_teacher, make_samples, family, reconstruction):
    augments = [dict(type='smmix_mm.SMMix', label_reconstruction=reconstruction, motivated_by='model')]
    model = make_classifier(family, augments=augments, teacher=make_teacher()[1]).train()
    model.init_weights()
    losses = model.loss(torch.randn(3, 3, 32, 32), make_samples([0, 1, 2]))
    sum(losses.values()).backward()
    assert set(losses) == {'loss_cls', 'loss_fine', 'loss_con'}
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
