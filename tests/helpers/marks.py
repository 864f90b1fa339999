"""What not every torch that this package runs on can do."""

import pytest
import torch

from smmix_mm.compat import CPU_FLOAT16

needs_cpu_float16 = pytest.mark.skipif(not CPU_FLOAT16, reason='torch computes in float16 on the CPU from 2.3')
needs_one_dnn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason='this torch has no oneDNN')
