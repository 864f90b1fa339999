"""What the code must compute, written out with loops over images, tokens, pixels and classes.

The tests compare with these. They follow the definitions of the papers, take no short cut and share nothing with the
package. Single numbers stay tensors where a gradient is asked for, so that autograd can go through the loops.
"""

import math

import torch


def window_sum(scores, top, left, region):
    """Sum of one window of a list of rows."""
    total = 0
    for row in range(top, top + region[0]):
        for col in range(left, left + region[1]):
            total += scores[row][col]
    return total


def best_window(scores, region, largest):
    """First token of the window of the largest, or smallest, sum; the first in row-major order where several tie."""
    best, best_sum = None, None
    for top in range(len(scores) - region[0] + 1):
        for left in range(len(scores[0]) - region[1] + 1):
            total = window_sum(scores, top, left, region)
            if best is None or (total > best_sum if largest else total < best_sum):
                best, best_sum = (top, left), total
    return best


def max_min_mix(images, attention, region):
    """Pixel by pixel; sums are exact where the attention's values are dyadic fractions."""
    pixels, result, scores = images.tolist(), images.tolist(), attention.double().tolist()
    batch, channels = len(pixels), len(pixels[0])
    grid = len(scores[0]), len(scores[0][0])
    patch = len(pixels[0][0]) // grid[0], len(pixels[0][0][0]) // grid[1]
    mask = [[[False] * grid[1] for _ in range(grid[0])] for _ in range(batch)]
    for target in range(batch):
        source = batch - 1 - target
        source_top, source_left = best_window(scores[source], region, largest=True)
        target_top, target_left = best_window(scores[target], region, largest=False)
        for row in range(region[0]):
            for col in range(region[1]):
                mask[target][target_top + row][target_left + col] = True
        for row in range(region[0] * patch[0]):
            for col in range(region[1] * patch[1]):
                for channel in range(channels):
                    result[target][channel][target_top * patch[0] + row][target_left * patch[1] + col] = pixels[source][
                        channel
                    ][source_top * patch[0] + row][source_left * patch[1] + col]
    return torch.tensor(result, dtype=images.dtype), torch.tensor(mask)


def softmax(values):
    """Of a list of numbers or of scalar tensors."""
    largest = max(value.item() if torch.is_tensor(value) else value for value in values)
    powers = [(value - largest).exp() if torch.is_tensor(value) else math.exp(value - largest) for value in values]
    total = sum(powers)
    return [power / total for power in powers]


def image_attention(query, key, num_extra_tokens):
    """Mean over heads and image queries of the softmax of the scaled products, extra tokens' columns left out."""
    batch, heads, tokens, dims = query.shape
    query, key = query.double().tolist(), key.double().tolist()
    received = [[0.0] * (tokens - num_extra_tokens) for _ in range(batch)]
    for image in range(batch):
        for head in range(heads):
            for i in range(num_extra_tokens, tokens):
                products = [
                    sum(query[image][head][i][c] * key[image][head][j][c] for c in range(dims)) / math.sqrt(dims)
                    for j in range(tokens)
                ]
                row = softmax(products)
                for j in range(num_extra_tokens, tokens):
                    received[image][j - num_extra_tokens] += row[j] / heads / (tokens - num_extra_tokens)
    return torch.tensor(received, dtype=torch.float64)


def block_attention(inputs, weight, bias, heads, num_extra_tokens):
    """Image attention of one self-attention layer from its input ``(B, N, C)`` and its projection to q, k and v."""
    batch, tokens, dims = inputs.shape
    projected = inputs.detach().double() @ weight.detach().double().T + bias.detach().double()
    query, key = projected[:, :, :dims], projected[:, :, dims : 2 * dims]
    query = query.reshape(batch, tokens, heads, dims // heads).transpose(1, 2)
    key = key.reshape(batch, tokens, heads, dims // heads).transpose(1, 2)
    return image_attention(query, key, num_extra_tokens)


def class_attention(query, key):
    """Mean over heads of the softmax of the class token's scaled products, its own column left out."""
    batch, heads, tokens, dims = key.shape
    query, key = query.double().tolist(), key.double().tolist()
    paid = [[0.0] * (tokens - 1) for _ in range(batch)]
    for image in range(batch):
        for head in range(heads):
            products = [
                sum(query[image][head][0][c] * key[image][head][j][c] for c in range(dims)) / math.sqrt(dims)
                for j in range(tokens)
            ]
            row = softmax(products)
            for j in range(1, tokens):
                paid[image][j - 1] += row[j] / heads
    return torch.tensor(paid, dtype=torch.float64)


def block_class_attention(inputs, weight, bias, heads):
    """Class attention of one self-attention layer, as :func:`block_attention`."""
    batch, tokens, dims = inputs.shape
    projected = inputs.detach().double() @ weight.detach().double().T + bias.detach().double()
    query, key = projected[:, :, :dims], projected[:, :, dims : 2 * dims]
    query = query.reshape(batch, tokens, heads, dims // heads).transpose(1, 2)
    key = key.reshape(batch, tokens, heads, dims // heads).transpose(1, 2)
    return class_attention(query, key)


def window_attention(inputs, grid, weight, bias, table, heads, window, shift):
    """Image attention of one layer of shifted windows, from the ``h * w`` attention among all tokens of an image.

    Each pair of tokens is looked at by itself: zero if the two lie in different windows. Tokens of zeros pad the map to
    whole windows and take part in the softmax; pairs that the shift brought together from opposite sides have 100 taken
    off their score.

    Args:
        inputs (Tensor): What the layer is given, ``(B, h * w, C)``.
        grid (tuple[int, int]): ``(h, w)``.
        weight (Tensor): Of the projection to q, k and v.
        bias (Tensor): Of that.
        table (Tensor): Relative position bias, ``((2 * window - 1) ** 2, heads)``.
        heads (int): Heads.
        window (int): Side of a window.
        shift (int): How far up and to the left the map is rolled.
    """
    batch, _, dims = inputs.shape
    padded = [-(-side // window) * window for side in grid]
    projected = torch.zeros(batch, *padded, 3 * dims, dtype=torch.float64) + bias.detach().double()
    product = inputs.detach().double() @ weight.detach().double().T
    projected[:, : grid[0], : grid[1]] += product.reshape(batch, *grid, 3 * dims)
    query, key, _ = (part.reshape(batch, *padded, heads, dims // heads) for part in projected.chunk(3, dim=3))

    def place(position, side):
        """Window along one side, position in it, and which of the parts that the shift brings together."""
        rolled = (position - shift) % side
        part = 0 if rolled < side - window or not shift else 1 if rolled < side - shift else 2
        return rolled // window, rolled % window, part

    places = {
        (row, col): tuple(zip(place(row, padded[0]), place(col, padded[1]), strict=True))
        for row in range(padded[0])
        for col in range(padded[1])
    }
    attention = torch.zeros(batch, heads, grid[0] * grid[1], grid[0] * grid[1], dtype=torch.float64)
    for row in range(grid[0]):
        for col in range(grid[1]):
            own_window, own, own_part = places[row, col]
            others = [other for other, (index, _, _) in places.items() if index == own_window]
            powers = []
            for other in others:
                _, theirs, part = places[other]
                relative = (own[0] - theirs[0] + window - 1) * (2 * window - 1) + own[1] - theirs[1] + window - 1
                score = (query[:, row, col] * key[:, other[0], other[1]]).sum(-1) / math.sqrt(dims // heads)
                powers.append((score + table[relative].detach().double() - 100 * (part != own_part)).exp())
            for other, power in zip(others, powers, strict=True):
                if other[0] < grid[0] and other[1] < grid[1]:
                    attention[:, :, row * grid[1] + col, other[0] * grid[1] + other[1]] = power / sum(powers)
    return attention.mean(dim=(1, 2))


def region_means(tokens, mask):
    """Mean token inside and outside the mask, ``(B, C)`` each."""
    inside, outside = [], []
    for image in range(len(tokens)):
        chosen = [bool(flag) for row in mask[image] for flag in row]
        for means, side in ((inside, True), (outside, False)):
            picked = [tokens[image, i] for i in range(len(chosen)) if chosen[i] is side]
            means.append(sum(picked) / len(picked))
    return torch.stack(inside), torch.stack(outside)


def mix_pairs(values, share):
    """``share`` of the source, image B - 1 - b, and the rest of the target, image b."""
    batch = len(values)
    return torch.stack([share * values[batch - 1 - b] + (1 - share) * values[b] for b in range(batch)])


def cross_entropy(logits, labels, smoothing):
    """Mean over the batch of the cross-entropy under soft labels, smoothed towards the uniform distribution."""
    batch, classes = logits.shape
    total = 0
    for image in range(batch):
        probs = softmax([logits[image, k] for k in range(classes)])
        for k in range(classes):
            smoothed = (1 - smoothing) * labels[image, k] + smoothing / classes
            total = total - smoothed * probs[k].log()
    return total / batch


def consistency(logits, expected):
    """KL(expected || softmax(logits)), summed over classes, mean over the batch."""
    batch, classes = logits.shape
    total = 0
    for image in range(batch):
        probs = softmax([logits[image, k] for k in range(classes)])
        for k in range(classes):
            p = float(expected[image, k])
            if p > 0:
                total = total + p * (math.log(p) - probs[k].log())
    return total / batch


def expected_probabilities(logits, share, of):
    """What the unmixed predictions say of the mixed image: from mixed logits, or from mixed probabilities."""
    if of == 'logits':
        return torch.stack([torch.stack(softmax(list(row))) for row in mix_pairs(logits, share)])
    return mix_pairs(torch.stack([torch.stack(softmax(list(row))) for row in logits]), share)


def layer_norm(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias


def patchify(images, weight, bias):
    """A convolution whose stride is its kernel: squares of pixels, cut out one by one, times the weight."""
    side = weight.shape[2]
    rows, cols = images.shape[2] // side, images.shape[3] // side
    tokens = []
    for row in range(rows):
        for col in range(cols):
            square = images[:, :, row * side : (row + 1) * side, col * side : (col + 1) * side]
            tokens.append(square.flatten(1) @ weight.flatten(1).T + bias)
    return torch.stack(tokens, dim=1), (rows, cols)


def resize_bilinear(tokens, old_grid, new_grid):
    """``(N, C)`` of one grid to another, each new token a mean of four old ones, half-pixel centres, clamped."""
    if old_grid == new_grid:
        return tokens
    resized = []
    for row in range(new_grid[0]):
        for col in range(new_grid[1]):
            corners = []
            for position, old, new in ((row, old_grid[0], new_grid[0]), (col, old_grid[1], new_grid[1])):
                place = max((position + 0.5) * old / new - 0.5, 0.0)
                low = min(int(place), old - 1)
                corners.append((low, min(low + 1, old - 1), place - low))
            (top, bottom, down), (left, right, along) = corners
            resized.append(
                (1 - down) * (1 - along) * tokens[top * old_grid[1] + left]
                + (1 - down) * along * tokens[top * old_grid[1] + right]
                + down * (1 - along) * tokens[bottom * old_grid[1] + left]
                + down * along * tokens[bottom * old_grid[1] + right]
            )
    return torch.stack(resized)


def pvt(parameters, arch, built_grids, images, cls_token=True):
    """The pyramid of four stages with explicit softmax attention.

    Returns the maps of the stages, the final normalised tokens (None without class token) and the attention
    ``(B, heads, N, M)`` of the last block.
    """
    p = parameters
    maps, attention, x = [], None, images
    for stage in range(4):
        dims, heads, ratio = arch['embed_dims'][stage], arch['num_heads'][stage], arch['sr_ratios'][stage]
        embed = f'patch_embed{stage + 1}.'
        x, grid = patchify(x, p[embed + 'proj.weight'], p[embed + 'proj.bias'])
        x = layer_norm(x, p[embed + 'norm.weight'], p[embed + 'norm.bias'], 1e-5)
        extra = 1 if cls_token and stage == 3 else 0
        position = p[f'pos_embed{stage + 1}'][0]
        position = torch.cat([position[:extra], resize_bilinear(position[extra:], built_grids[stage], grid)])
        if extra:
            x = torch.cat([p['cls_token'].repeat(len(x), 1, 1), x], dim=1)
        x = x + position
        for depth in range(arch['depths'][stage]):
            b = f'block{stage + 1}.{depth}.'
            y = layer_norm(x, p[b + 'norm1.weight'], p[b + 'norm1.bias'], 1e-6)
            reduced = y
            if ratio > 1:
                as_map = torch.stack([row.T.reshape(dims, *grid) for row in y])
                reduced, _ = patchify(as_map, p[b + 'attn.sr.weight'], p[b + 'attn.sr.bias'])
                reduced = layer_norm(reduced, p[b + 'attn.norm.weight'], p[b + 'attn.norm.bias'], 1e-5)
            query = y @ p[b + 'attn.q.weight'].T + p[b + 'attn.q.bias']
            both = reduced @ p[b + 'attn.kv.weight'].T + p[b + 'attn.kv.bias']
            key, value = both[:, :, :dims], both[:, :, dims:]
            attended, rows, size = [], [], dims // heads
            for head in range(heads):
                part = slice(head * size, (head + 1) * size)
                scores = (query[:, :, part] @ key[:, :, part].mT / math.sqrt(size)).exp()
                rows.append(scores / scores.sum(-1, keepdim=True))
                attended.append(rows[-1] @ value[:, :, part])
            attention = torch.stack(rows, dim=1)
            x = x + torch.cat(attended, dim=2) @ p[b + 'attn.proj.weight'].T + p[b + 'attn.proj.bias']
            y = layer_norm(x, p[b + 'norm2.weight'], p[b + 'norm2.bias'], 1e-6)
            y = y @ p[b + 'mlp.fc1.weight'].T + p[b + 'mlp.fc1.bias']
            y = y * (1 + torch.erf(y / math.sqrt(2))) / 2
            x = x + y @ p[b + 'mlp.fc2.weight'].T + p[b + 'mlp.fc2.bias']
        if not extra:
            x = torch.stack([row.T.reshape(dims, *grid) for row in x])
            maps.append(x)
    tokens = layer_norm(x, p['norm.weight'], p['norm.bias'], 1e-6) if cls_token else None
    return maps, tokens, attention


def resize_bicubic(tokens, old_grid, new_grid):
    """``(N, C)`` of one grid to another, each new token a sum of sixteen old ones, half-pixel centres, clamped."""
    if old_grid == new_grid:
        return tokens

    def kernel(distance):
        x, a = abs(distance), -0.75
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0

    def taps(position, old, new):
        centre = (position + 0.5) * old / new - 0.5
        return [
            (min(max(math.floor(centre) + step, 0), old - 1), kernel(centre - math.floor(centre) - step))
            for step in range(-1, 3)
        ]

    resized = []
    for row in range(new_grid[0]):
        for col in range(new_grid[1]):
            resized.append(
                sum(
                    down * along * tokens[top * old_grid[1] + left]
                    for top, down in taps(row, old_grid[0], new_grid[0])
                    for left, along in taps(col, old_grid[1], new_grid[1])
                )
            )
    return torch.stack(resized)


def talking_heads(y, p, b, heads):
    """Heads mixed, an explicit softmax, heads mixed again: the output, and the softmax ``(B, heads, N, N)``."""
    dims = y.shape[2]
    size = dims // heads
    query, key, value = (y @ p[b + 'qkv.weight'].T + p[b + 'qkv.bias']).split(dims, dim=2)
    parts = [slice(head * size, (head + 1) * size) for head in range(heads)]
    scores = [query[:, :, part] @ key[:, :, part].mT / math.sqrt(size) for part in parts]

    def mix(maps, name):
        weight, bias = p[f'{b}{name}.weight'], p[f'{b}{name}.bias']
        return [sum(weight[to, of] * maps[of] for of in range(heads)) + bias[to] for to in range(heads)]

    powers = [mixed.exp() for mixed in mix(scores, 'proj_l')]
    weights = [power / power.sum(-1, keepdim=True) for power in powers]
    attended = [one @ value[:, :, part] for one, part in zip(mix(weights, 'proj_w'), parts, strict=True)]
    return torch.cat(attended, dim=2) @ p[b + 'proj.weight'].T + p[b + 'proj.bias'], torch.stack(weights, dim=1)


def class_token_attention(y, p, b, heads):
    """Of the first token to all: the output ``(B, 1, C)``, and the softmax ``(B, heads, N)``."""
    query, key, value = (y @ p[f'{b}{name}.weight'].T + p[f'{b}{name}.bias'] for name in 'qkv')
    size = y.shape[2] // heads
    rows, attended = [], []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        powers = ((query[:, :1, part] * key[:, :, part]).sum(-1) / math.sqrt(size)).exp()
        rows.append(powers / powers.sum(-1, keepdim=True))
        attended.append((rows[-1].unsqueeze(2) * value[:, :, part]).sum(1, keepdim=True))
    return torch.cat(attended, dim=2) @ p[b + 'proj.weight'].T + p[b + 'proj.bias'], torch.stack(rows, dim=1)


def cait(parameters, arch, built_grid, images):
    """Talking heads among the image tokens, then a class token that gathers from them.

    Returns the final normalised tokens, the class token first, the softmax ``(B, heads, N, N)`` of the last
    self-attention block and that of the last class-attention block, ``(B, heads, 1 + N)``.
    """
    p, heads = parameters, arch['num_heads']
    x, grid = patchify(images, p['patch_embed.proj.weight'], p['patch_embed.proj.bias'])
    x = x + resize_bicubic(p['pos_embed'][0], built_grid, grid)

    def perceptron(y, b):
        y = layer_norm(y, p[b + 'norm2.weight'], p[b + 'norm2.bias'], 1e-6)
        y = y @ p[b + 'mlp.fc1.weight'].T + p[b + 'mlp.fc1.bias']
        y = y * (1 + torch.erf(y / math.sqrt(2))) / 2
        return p[b + 'gamma_2'] * (y @ p[b + 'mlp.fc2.weight'].T + p[b + 'mlp.fc2.bias'])

    for depth in range(arch['depth']):
        b = f'blocks.{depth}.'
        y = layer_norm(x, p[b + 'norm1.weight'], p[b + 'norm1.bias'], 1e-6)
        attended, attention = talking_heads(y, p, b + 'attn.', heads)
        x = x + p[b + 'gamma_1'] * attended
        x = x + perceptron(x, b)
    token = p['cls_token'].repeat(len(x), 1, 1)
    for depth in range(arch['class_depth']):
        b = f'blocks_token_only.{depth}.'
        y = layer_norm(torch.cat([token, x], dim=1), p[b + 'norm1.weight'], p[b + 'norm1.bias'], 1e-6)
        attended, class_row = class_token_attention(y, p, b + 'attn.', heads)
        token = token + p[b + 'gamma_1'] * attended
        token = token + perceptron(token, b)
    tokens = layer_norm(torch.cat([token, x], dim=1), p['norm.weight'], p['norm.bias'], 1e-6)
    return tokens, attention, class_row
