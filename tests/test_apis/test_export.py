"""Exported programs against the models: other batches and, for feature maps, other sizes than those of the trace."""

import pytest
import torch
from mmengine.config import Config
from mmpretrain.models.utils import ShiftWindowMSA
from processes import ROOT, run
from torch import nn

from smmix_mm.apis import check_onnx, export_onnx
from smmix_mm.compat import is_exporting
from smmix_mm.engine import build_model

OUT_TYPES = ('cls_token', 'featmap')
our_backbones = pytest.mark.parametrize('family', ['pvt', 'cait'])


class Dense(nn.Module):
    """Stands for a detector or segmentor, of which the backbone is exported."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone


def draw_other_sizes(out_type):
    """Batches and sizes that differ from those of the trace; feature maps take sizes that are no multiples."""
    other = (75, 101) if out_type == 'featmap' else (64, 96)
    return torch.randn(5, 3, 32, 32), torch.randn(3, 3, *other)


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@our_backbones
@pytest.mark.parametrize('out_type', OUT_TYPES)
def test_traces_keep_sizes_free(make_backbone, family, out_type):
    backbone = make_backbone(family, out_type=out_type).eval()
    with torch.no_grad():
        traced = torch.jit.trace(backbone, torch.randn(2, 3, 32, 32))
        for images in draw_other_sizes(out_type):
            for found, expected in zip(traced(images), backbone(images), strict=True):
                assert found.equal(expected)


@pytest.mark.slow
@pytest.mark.skipif(is_exporting.__name__ == '<lambda>', reason='this torch cannot tell that it exports')
@our_backbones
@pytest.mark.parametrize('out_type', OUT_TYPES)
def test_torch_export_keeps_sizes_free(make_backbone, family, out_type):
    backbone = make_backbone(family, out_type=out_type).eval()
    free = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    with torch.no_grad():
        program = torch.export.export(backbone, (torch.randn(2, 3, 32, 32),), dynamic_shapes=(free,)).module()
        for images in draw_other_sizes(out_type):
            for found, expected in zip(program(images), backbone(images), strict=True):
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def run_onnx(path, images):
    onnxruntime = pytest.importorskip('onnxruntime')
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return [torch.from_numpy(output) for output in session.run(None, {'images': images.numpy()})]


@pytest.fixture
def onnx_installed():
    pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')


needs_onnx = pytest.mark.usefixtures('onnx_installed')


@needs_onnx
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('family', ['vit', 'pvt', 'cait', pytest.param('swin', marks=pytest.mark.slow)])
def test_classifiers(make_classifier, tmp_path, family):
    model = make_classifier(family)
    stock = ShiftWindowMSA.window_reverse
    assert export_onnx(model, tmp_path / 'model.onnx', (32, 32)) < 1e-4
    assert ShiftWindowMSA.window_reverse is stock
    images = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        expected = model(images, mode='tensor')
    (found,) = run_onnx(tmp_path / 'model.onnx', images)
    assert found.shape == (5, 5)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.slow
@needs_onnx
@pytest.mark.filterwarnings('ignore')
@our_backbones
def test_feature_maps_of_any_size(make_backbone, tmp_path, family):
    backbone = make_backbone(family, out_type='featmap')
    export_onnx(Dense(backbone), tmp_path / 'maps.onnx', (32, 32))
    images = torch.randn(3, 3, 90, 47)
    with torch.no_grad():
        expected = backbone(images)
    for found, one in zip(run_onnx(tmp_path / 'maps.onnx', images), expected, strict=True):
        torch.testing.assert_close(found / one.abs().max(), one / one.abs().max(), rtol=0, atol=1e-4)


class Frozen(nn.Module):
    """A backbone whose map has the size of the trace, whatever the images have."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, images):
        return (self.layer(images)[..., : int(images.shape[2]), : int(images.shape[3])],)


@needs_onnx
@pytest.mark.filterwarnings('ignore')
def test_what_does_not_stay_free_is_refused(tmp_path):
    path = tmp_path / 'maps.onnx'
    path.write_bytes(b'kept')
    with pytest.raises(ValueError, match=r'\(1, 3, 69, 107\) .* export it with fixed_size=True'):
        export_onnx(Dense(Frozen()), path, (32, 32))
    assert [file.name for file in tmp_path.iterdir()] == ['maps.onnx']
    assert path.read_bytes() == b'kept'
    assert export_onnx(Dense(Frozen()), path, (32, 32), fixed_size=True) < 1e-6


@needs_onnx
@pytest.mark.filterwarnings('ignore')
def test_other_weights_are_noticed(tmp_path):
    backbone = Dense(Frozen())
    export_onnx(backbone, tmp_path / 'maps.onnx', (8, 8), fixed_size=True)

    def changed(images):
        return (backbone.backbone(images)[0] + 1e-3,)

    changed.parameters = backbone.parameters
    with pytest.raises(ValueError, match=r'differs from the model by 0\.\d+, more than 0\.0001'):
        check_onnx(changed, tmp_path / 'maps.onnx', (2, 3, 8, 8))


@pytest.mark.slow
@needs_onnx
def test_tool(tmp_path):
    config = ROOT / 'configs/smmix/pvt-mini_smmix_1xb32-8e_digit-scenes.py'
    model = build_model(Config.fromfile(config))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'model.pth')
    out = tmp_path / 'model.onnx'
    done = run('deployment/export_onnx.py', config, tmp_path / 'model.pth', '--out', out)
    assert f'{out} differs from the model by at most' in done.stdout
    images = torch.randn(4, 3, 64, 64)
    model.eval()
    with torch.no_grad():
        expected = model(images, mode='tensor')
    torch.testing.assert_close(run_onnx(out, images)[0], expected, rtol=0, atol=1e-4)
    failed = run('deployment/export_onnx.py', config, tmp_path / 'gone.pth', check=False)
    assert failed.returncode == 1
    assert 'gone.pth' in failed.stderr
